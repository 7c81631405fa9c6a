"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 100;
  const total = data.name.length;
  const text = (column, row) => { const n = data[column].rows[row]; return n < 0 ? "" : data[column].names[n]; };
  const title = (row) => data.title[row] || data.name[row];
  const COLUMNS = [
    ["title", "Track"], ["artist", "Artist"], ["genre", "Genre"], ["confidence", "Score"], ["status", "Status"],
    ["stage", "Stage"],
  ];
  const SAID = "corrected by hand";
  const form = document.querySelector("form");
  const table = document.querySelector(".tracks");
  const pages = document.querySelector(".pages");
  const found = document.querySelector(".found");
  const state = { q: "", genre: "", status: "", stage: "", sort: "", down: false, page: 0 };
  let view = [];

  // What can be searched of each row, without accents and case; made when first needed.
  const plain = (string) => string.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  let hay = null;
  const haystack = () => {
    if (!hay) {
      const folders = data.folder.names.map(plain), artists = data.artist.names.map(plain);
      const genres = data.genre.names.map(plain);
      const at = (list, n) => n < 0 ? "" : list[n];
      hay = data.name.map((name, row) => [
        at(artists, data.artist.rows[row]), data.title[row] ? plain(data.title[row]) : "", plain(name),
        at(folders, data.folder.rows[row]), at(genres, data.genre.rows[row]),
      ].join("\n"));
    }
    return hay;
  };

  // The place of each row in the order of a column; made when first needed.
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const places = {};
  const ranks = (names) => {
    const rank = new Int32Array(names.length);
    names.map((_, i) => i).sort((a, b) => collator.compare(names[a], names[b])).forEach((i, place) => { rank[i] = place; });
    return rank;
  };
  const order = (column) => {
    if (!places[column]) {
      if (column === "confidence") places[column] = Int32Array.from(data.confidence);
      else if (column === "title") places[column] = ranks(data.name.map((_, row) => title(row)));
      else {
        const rank = ranks(data[column].names);
        places[column] = Int32Array.from(data[column].rows, (n) => n < 0 ? -1 : rank[n]);
      }
    }
    return places[column];
  };

  const select = () => {
    const words = plain(state.q).split(/\s+/).filter(Boolean);
    const wanted = ["genre", "status", "stage"].filter((c) => state[c] && !(c === "status" && state[c] === SAID))
      .map((c) => [data[c].rows, data[c].names.indexOf(state[c])]);
    const said = state.status === SAID;
    const search = words.length ? haystack() : null;
    view = [];
    for (let row = 0; row < total; row++) {
      if (said && !data.said[row]) continue;
      if (wanted.some(([rows, n]) => rows[row] !== n)) continue;
      // A guess is no genre: the counts above do not hold it either.
      if (state.genre && isGuess(row)) continue;
      if (search && !words.every((word) => search[row].includes(word))) continue;
      view.push(row);
    }
    if (state.sort) {
      const place = order(state.sort), sign = state.down ? -1 : 1;
      // What has no value comes last, whichever way.
      view.sort((a, b) => (place[a] < 0) - (place[b] < 0) || sign * (place[a] - place[b]) || a - b);
    }
  };
  const isGuess = (row) => text("status", row) !== "ok" && !data.said[row];

  const cell = (tr, string, kind) => {
    const td = tr.insertCell();
    td.textContent = string;
    if (kind) td.className = kind;
    return td;
  };
  const show = () => {
    const last = Math.max(0, Math.ceil(view.length / PAGE) - 1);
    state.page = Math.min(Math.max(state.page, 0), last);
    const body = document.createElement("tbody");
    for (const row of view.slice(state.page * PAGE, (state.page + 1) * PAGE)) {
      const tr = body.insertRow();
      const where = document.createElement("small");
      const folder = text("folder", row);
      where.textContent = data.title[row] ? folder + "/" + data.name[row] : folder;
      cell(tr, title(row)).append(where);
      cell(tr, text("artist", row));
      const genre = text("genre", row), status = text("status", row), score = data.confidence[row];
      if (data.said[row]) cell(tr, genre).append(Object.assign(document.createElement("small"), { textContent: "by hand" }));
      else if (isGuess(row)) cell(tr, genre && genre + "?", "soft");
      else cell(tr, genre);
      cell(tr, score < 0 ? "" : (score / 1000).toFixed(2));
      cell(tr, status.replace(/_/g, " "), status === "ok" ? "soft" : GOOD.has(status) ? "" : "bad");
      cell(tr, text("stage", row), "soft");
    }
    table.tBodies[0].replaceWith(body);
    const n = (number) => number.toLocaleString("en").replace(/,/g, "\u202f");
    found.textContent = view.length === total ? n(total) + " tracks" : n(view.length) + " of " + n(total) + " tracks";
    pages.hidden = last === 0;
    pages.querySelector("span").textContent = "page " + n(state.page + 1) + " of " + n(last + 1);
    for (const button of pages.querySelectorAll("button")) {
      button.disabled = /first|before/.test(button.dataset.to) ? state.page === 0 : state.page === last;
    }
    for (const th of table.tHead.rows[0].cells) {
      const sorted = th.dataset.column === state.sort;
      th.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
    }
    form.sort.value = state.sort + (state.down ? "-" : "");
  };
  const GOOD = new Set(["unsure", "silent", "too_short", "not classified"]);

  // What is shown stands in the address, so that it can be kept, and the links of the charts work.
  const write = () => {
    const parts = ["q", "genre", "status", "stage"].filter((k) => state[k]).map((k) => k + "=" + encodeURIComponent(state[k]));
    if (state.sort) parts.push("sort=" + state.sort + (state.down ? "-" : ""));
    try { history.replaceState(null, "", "#" + parts.join("&")); } catch { /* not allowed here; nothing is lost */ }
  };
  const read = () => {
    const given = new URLSearchParams(location.hash.slice(1).replace(/\+/g, "%2B"));
    for (const key of ["q", "genre", "status", "stage"]) state[key] = form[key].value = given.get(key) || "";
    const sort = given.get("sort") || "";
    state.down = sort.endsWith("-");
    state.sort = COLUMNS.some(([c]) => c === sort.replace(/-$/, "")) ? sort.replace(/-$/, "") : "";
    state.page = 0;
  };
  const update = () => { state.page = 0; select(); show(); write(); };

  const option = (list, value, label) => list.append(new Option(label ?? value, value));
  for (const key of ["genre", "status", "stage"]) {
    [...data[key].names].sort(collator.compare).forEach((name) => option(form[key], name, name.replace(/_/g, " ")));
  }
  if (data.said.includes(1)) option(form.status, SAID);
  option(form.sort, "", "folder");
  for (const [column, label] of COLUMNS) {
    const th = document.createElement("th");
    th.scope = "col";
    th.dataset.column = column;
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    button.addEventListener("click", () => {
      state.down = state.sort === column && !state.down;
      state.sort = column;
      update();
    });
    th.append(button);
    table.tHead.rows[0].append(th);
    option(form.sort, column, label.toLowerCase());
    option(form.sort, column + "-", label.toLowerCase() + ", last first");
  }
  let waiting = 0;
  form.addEventListener("input", (event) => {
    const field = event.target;
    if (field.name === "sort") { state.down = field.value.endsWith("-"); state.sort = field.value.replace(/-$/, ""); }
    else state[field.name] = field.value;
    clearTimeout(waiting);
    waiting = setTimeout(update, field.name === "q" ? 120 : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  pages.addEventListener("click", (event) => {
    const to = event.target.dataset.to;
    if (!to) return;
    state.page = { first: 0, before: state.page - 1, next: state.page + 1, last: Infinity }[to];
    show();
    document.getElementById("tracks").scrollIntoView();
  });
  addEventListener("hashchange", () => {
    read(); select(); show();
    document.getElementById("tracks").scrollIntoView();
  });
  form.hidden = table.hidden = false;
  read(); select(); show();
})();
