"use strict";
const fields = [...document.querySelectorAll("input[data-cluster]")];
const said = document.getElementById("said");
let saved = true;
const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
const name = (field) => field.value.trim().replace(/\s+/g, " ");
const count = () => {
  said.textContent = `${fields.filter(name).length} of ${fields.length} clusters have a name`;
};
document.addEventListener("input", () => {
  saved = false;
  count();
});
document.getElementById("save").addEventListener("click", () => {
  const rows = fields.map((field) => [field.dataset.cluster, quoted(name(field)), document.body.dataset.clustering]);
  const text = [["cluster", "genre", "clustering"], ...rows].map((row) => row.join(",") + "\r\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "names.csv";
  link.click();
  saved = true;
});
window.addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});
document.getElementById("bar").hidden = false;
count();
