/* See edge-reclass.h. HTTP/1.0 over a Unix socket: the answer is never in chunks, and ends with the connection. */
#define _POSIX_C_SOURCE 200809L

#include "edge-reclass.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_HEAD = 64 * 1024, MOST_ANSWER = 64 * 1024 * 1024, PIECE = 64 * 1024 };

/* ---- memory that grows ---- */

struct text {
    char *bytes;
    size_t length, room;
    int failed; /* out of memory: what follows is dropped */
};

static void add(struct text *text, const void *bytes, size_t length)
{
    if (text->failed)
        return;
    if (length >= SIZE_MAX / 4 - text->length) {
        text->failed = 1;
        return;
    }
    if (text->length + length + 1 > text->room) {
        size_t room = 2 * (text->length + length + 1);
        char *bigger = realloc(text->bytes, room);
        if (bigger == NULL) {
            text->failed = 1;
            return;
        }
        text->bytes = bigger;
        text->room = room;
    }
    if (length > 0)
        memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

static void say(struct text *text, const char *words) { add(text, words, strlen(words)); }

static int fail(struct edge_reclass_answer *answer, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(answer->error, sizeof answer->error, format, values);
    va_end(values);
    return -1;
}

/* ---- the path as JSON ---- */

/* Bytes of the valid UTF-8 sequence that begins at `at`; 0 where there is none. */
static size_t utf8(const unsigned char *at)
{
    size_t length = at[0] < 0x80 ? 1 : at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80) /* the zero at the end is none of these */
            return 0;
    if ((at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xED && at[1] > 0x9F) || (at[0] == 0xF0 && at[1] < 0x90) ||
        (at[0] == 0xF4 && at[1] > 0x8F))
        return 0;
    return length;
}

static int is_utf8(const char *name)
{
    const unsigned char *at = (const unsigned char *)name;
    while (*at != '\0') {
        size_t length = utf8(at);
        if (length == 0)
            return 0;
        at += length;
    }
    return 1;
}

static void say_escaped(struct text *json, const char *name)
{
    for (; *name != '\0'; name++) {
        if (*name == '"' || *name == '\\') {
            char pair[2] = {'\\', *name};
            add(json, pair, 2);
        } else if ((unsigned char)*name < 0x20) {
            char code[8];
            snprintf(code, sizeof code, "\\u%04x", (unsigned)(unsigned char)*name);
            say(json, code);
        } else {
            add(json, name, 1);
        }
    }
}

static void say_base64(struct text *json, const char *name)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *at = (const unsigned char *)name;
    for (size_t left = strlen(name); left > 0;) {
        size_t taken = left < 3 ? left : 3;
        unsigned long bits = (unsigned long)at[0] << 16;
        if (taken > 1)
            bits |= (unsigned long)at[1] << 8;
        if (taken > 2)
            bits |= at[2];
        char four[4] = {digits[bits >> 18 & 63], digits[bits >> 12 & 63], taken > 1 ? digits[bits >> 6 & 63] : '=',
                        taken > 2 ? digits[bits & 63] : '='};
        add(json, four, 4);
        at += taken;
        left -= taken;
    }
}

/* {"path": …}, or {"path_bytes": …} where the name is not UTF-8; a relative path begins at the working directory. */
static int say_path(struct text *json, const char *path, struct edge_reclass_answer *answer)
{
    struct text full = {0};
    if (path[0] != '/') {
        char *here = malloc(PATH_MAX);
        if (here == NULL || getcwd(here, PATH_MAX) == NULL) {
            free(here);
            return fail(answer, "%s: the working directory cannot be found (%s)", path, strerror(errno));
        }
        say(&full, here);
        say(&full, "/");
        free(here);
    }
    say(&full, path);
    if (full.failed) {
        free(full.bytes);
        return fail(answer, "out of memory");
    }
    if (is_utf8(full.bytes)) {
        say(json, "{\"path\":\"");
        say_escaped(json, full.bytes);
    } else {
        say(json, "{\"path_bytes\":\"");
        say_base64(json, full.bytes);
    }
    say(json, "\"}");
    free(full.bytes);
    return 0;
}

/* The last part of a path, each byte that is no letter, digit, - . _ or ~ as %XX. */
static void say_name(struct text *head, const char *path)
{
    const char *slash = strrchr(path, '/');
    for (const char *at = slash == NULL ? path : slash + 1; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~", c) != NULL) {
            add(head, at, 1);
        } else {
            char code[4];
            snprintf(code, sizeof code, "%%%02X", (unsigned)c);
            say(head, code);
        }
    }
}

/* ---- one exchange ---- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* 1 where the socket can be read or written, 0 where the time is up, -1 for an error (errno). */
static int wait_for(int socket, short what, double until)
{
    for (;;) {
        double left = until - now();
        if (left <= 0)
            return 0;
        struct pollfd one = {socket, what, 0};
        int ready = poll(&one, 1, left > 60 ? 60000 : (int)(left * 1000) + 1);
        if (ready > 0)
            return 1;
        if (ready < 0 && errno != EINTR)
            return -1;
    }
}

static int late(const struct edge_reclass *service, struct edge_reclass_answer *answer)
{
    return fail(answer, "the service at %s did not answer within %g s", service->socket, service->timeout);
}

/* 0: sent; 1: the service has hung up, and has mostly answered already; -1: failed. */
static int send_all(const struct edge_reclass *service, int socket, const char *bytes, size_t length, double until,
                    struct edge_reclass_answer *answer)
{
    while (length > 0) {
        int ready = wait_for(socket, POLLOUT, until);
        if (ready == 0)
            return late(service, answer);
        ssize_t sent = ready < 0 ? -1 : send(socket, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EPIPE || errno == ECONNRESET)
                return 1;
            if (errno == EAGAIN || errno == EINTR)
                continue;
            return fail(answer, "the service at %s: sending failed (%s)", service->socket, strerror(errno));
        }
        bytes += sent;
        length -= (size_t)sent;
    }
    return 0;
}

static int send_file(const struct edge_reclass *service, int socket, int file, size_t left, double until,
                     struct edge_reclass_answer *answer)
{
    char *piece = malloc(PIECE);
    int sent = piece == NULL ? fail(answer, "out of memory") : 0;
    while (left > 0 && sent == 0) {
        ssize_t got = read(file, piece, left < PIECE ? left : PIECE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            sent = fail(answer, "the file could not be read to its end (%s)", got < 0 ? strerror(errno) : "it shrank");
            break;
        }
        sent = send_all(service, socket, piece, (size_t)got, until, answer);
        left -= (size_t)got;
    }
    free(piece);
    return sent;
}

static int receive(const struct edge_reclass *service, int socket, struct text *all, double until,
                   struct edge_reclass_answer *answer)
{
    char *piece = malloc(PIECE);
    int result = piece == NULL ? fail(answer, "out of memory") : 0;
    while (result == 0) {
        int ready = wait_for(socket, POLLIN, until);
        if (ready == 0) {
            result = late(service, answer);
            break;
        }
        ssize_t got = ready < 0 ? -1 : recv(socket, piece, PIECE, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            break;
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got < 0)
            result = fail(answer, "the service at %s: receiving failed (%s)", service->socket, strerror(errno));
        else if (all->length + (size_t)got > MOST_HEAD + MOST_ANSWER)
            result = fail(answer, "the service at %s answers with more than %d bytes", service->socket, MOST_ANSWER);
        else
            add(all, piece, (size_t)got);
    }
    free(piece);
    if (result == 0 && all->failed)
        return fail(answer, "out of memory");
    return result;
}

/* The value of a header in the head, which ends at `end`; NULL where it is not there. */
static const char *header(const char *head, const char *end, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = head; line < end; line++) {
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            while (*line == ' ' || *line == '\t')
                line++;
            return line;
        }
        line = memchr(line, '\n', (size_t)(end - line));
        if (line == NULL)
            break;
    }
    return NULL;
}

/* Take the answer apart: status, body, and seconds after which to ask again (-1 where it says none). */
static int understand(const struct edge_reclass *service, struct text *all, double *again,
                      struct edge_reclass_answer *answer)
{
    int major = 0, status = 0;
    if (all->length == 0)
        return fail(answer, "the service at %s closed the connection without an answer", service->socket);
    char *body = strstr(all->bytes, "\r\n\r\n");
    if (sscanf(all->bytes, "HTTP/%1d.%*1d %3d", &major, &status) != 2 || major != 1 || status < 200 || status > 599 ||
        body == NULL || body - all->bytes > MOST_HEAD)
        return fail(answer, "%s: expected an answer of HTTP; does something else listen there?", service->socket);
    body += 4;
    size_t length = all->length - (size_t)(body - all->bytes);
    const char *sized = header(all->bytes, body, "content-length");
    if (sized != NULL) {
        char *rest;
        errno = 0;
        unsigned long long expected = *sized < '0' || *sized > '9' ? ULLONG_MAX : strtoull(sized, &rest, 10);
        if (errno != 0 || expected != length)
            return fail(answer, "the service at %s closed the connection before the end of its answer", service->socket);
    }
    const char *retry = header(all->bytes, body, "retry-after");
    *again = status == 503 && retry != NULL ? strtod(retry, NULL) : -1;
    memmove(all->bytes, body, length + 1);
    answer->status = status;
    answer->body = all->bytes;
    answer->length = length;
    all->bytes = NULL;
    if (status == 200)
        return 0;
    char detail[180] = "";
    if (edge_reclass_text(answer->body, "detail", detail, sizeof detail) < 1)
        edge_reclass_text(answer->body, "title", detail, sizeof detail);
    return fail(answer, "the service: %s (status %d)", detail[0] != '\0' ? detail : "without a reason", status);
}

static int open_socket(const struct edge_reclass *service, struct edge_reclass_answer *answer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(service->socket) >= sizeof address.sun_path)
        return fail(answer, "%s: a socket's path has at most %zu bytes", service->socket, sizeof address.sun_path - 1);
    memcpy(address.sun_path, service->socket, strlen(service->socket) + 1);
    int socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0)
        return fail(answer, "no socket can be made (%s)", strerror(errno));
    /* Where more connections wait than the socket takes, connect() waits for a place. */
    struct timeval most = {(time_t)service->timeout, 0};
    if (most.tv_sec < 1)
        most.tv_sec = 1;
    setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
    if (connect(socket_, (const struct sockaddr *)&address, sizeof address) == 0)
        return socket_;
    fail(answer, "%s: the service cannot be reached (%s)%s", service->socket, strerror(errno),
         errno == EACCES ? "; you must be in the socket's group" : "");
    close(socket_);
    return -1;
}

/* The body of a request: bytes, or `length` bytes of a file. */
struct body {
    const char *type;
    const char *bytes;
    int file; /* -1: bytes */
    size_t length;
    const char *path; /* of the file, else NULL */
};

static int exchange(const struct edge_reclass *service, const char *request, const struct body *body, double *again,
                    struct edge_reclass_answer *answer)
{
    double until = now() + service->timeout;
    struct text head = {0}, all = {0};
    char sized[64];
    say(&head, request);
    say(&head, " HTTP/1.0\r\nHost: localhost\r\nUser-Agent: edge-reclass-c\r\n");
    if (service->token != NULL) {
        say(&head, "Authorization: Bearer ");
        say(&head, service->token);
        say(&head, "\r\n");
    }
    if (body->path != NULL) {
        say(&head, "X-File-Name: ");
        say_name(&head, body->path);
        say(&head, "\r\n");
    }
    if (body->type != NULL) {
        say(&head, "Content-Type: ");
        say(&head, body->type);
        snprintf(sized, sizeof sized, "\r\nContent-Length: %zu\r\n", body->length);
        say(&head, sized);
    }
    say(&head, "\r\n");
    int result = head.failed ? fail(answer, "out of memory") : 0;
    int socket = result < 0 ? -1 : open_socket(service, answer);
    if (socket < 0)
        result = -1;
    if (result == 0)
        result = send_all(service, socket, head.bytes, head.length, until, answer);
    if (result == 0 && body->file >= 0)
        result = send_file(service, socket, body->file, body->length, until, answer);
    else if (result == 0)
        result = send_all(service, socket, body->bytes, body->length, until, answer);
    if (result >= 0)
        result = receive(service, socket, &all, until, answer);
    if (socket >= 0)
        close(socket);
    if (result == 0)
        result = understand(service, &all, again, answer);
    free(head.bytes);
    free(all.bytes);
    return result;
}

static int ask(const struct edge_reclass *service, const char *request, const struct body *body,
               struct edge_reclass_answer *answer)
{
    double until = now() + service->patience;
    if (service->token != NULL && strpbrk(service->token, "\r\n") != NULL)
        return fail(answer, "a token has no line breaks");
    for (;;) {
        double again = -1;
        edge_reclass_free(answer);
        if (body->file >= 0 && lseek(body->file, 0, SEEK_SET) < 0)
            return fail(answer, "the file cannot be read from its beginning (%s)", strerror(errno));
        int result = exchange(service, request, body, &again, answer);
        double left = until - now();
        if (result == 0 || !(again >= 0) || left <= 0)
            return result;
        double pause = again < 0.05 ? 0.05 : again < left ? again : left;
        struct timespec time = {(time_t)pause, (long)((pause - (double)(time_t)pause) * 1e9)};
        while (nanosleep(&time, &time) < 0 && errno == EINTR)
            ;
    }
}

/* ---- what can be asked ---- */

int edge_reclass_classify(const struct edge_reclass *service, const char *path, struct edge_reclass_answer *answer)
{
    struct text json = {0};
    memset(answer, 0, sizeof *answer);
    int result = say_path(&json, path, answer);
    if (result == 0 && json.failed)
        result = fail(answer, "out of memory");
    if (result == 0) {
        struct body body = {"application/json", json.bytes, -1, json.length, NULL};
        result = ask(service, "POST /v1/classify", &body, answer);
    }
    free(json.bytes);
    return result;
}

int edge_reclass_classify_content(const struct edge_reclass *service, const char *path,
                                  struct edge_reclass_answer *answer)
{
    memset(answer, 0, sizeof *answer);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO without a writer does not hold us up */
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) {
        int reason = errno;
        if (file >= 0)
            close(file);
        return fail(answer, "%s: cannot be read (%s)", path, strerror(reason));
    }
    int result;
    if (S_ISREG(status.st_mode)) {
        struct body body = {"application/octet-stream", NULL, file, (size_t)status.st_size, path};
        result = ask(service, "POST /v1/classify", &body, answer);
    } else {
        result = fail(answer, "%s: not a file with a content", path);
    }
    close(file);
    return result;
}

int edge_reclass_classify_pcm(const struct edge_reclass *service, const void *samples, size_t bytes, const char *format,
                              int rate, int channels, struct edge_reclass_answer *answer)
{
    char request[128];
    memset(answer, 0, sizeof *answer);
    if (strcmp(format, "s16le") != 0 && strcmp(format, "f32le") != 0)
        return fail(answer, "expected the format s16le or f32le, got %s", format);
    snprintf(request, sizeof request, "POST /v1/classify?rate=%d&channels=%d&format=%s", rate, channels, format);
    struct body body = {"audio/pcm", samples, -1, bytes, NULL};
    return ask(service, request, &body, answer);
}

int edge_reclass_get(const struct edge_reclass *service, const char *target, struct edge_reclass_answer *answer)
{
    struct text request = {0};
    struct body body = {NULL, NULL, -1, 0, NULL};
    memset(answer, 0, sizeof *answer);
    for (const char *at = target; *at != '\0'; at++)
        if (*at <= ' ' || *at == '\x7f')
            return fail(answer, "expected a target such as /v1/version, without spaces or bytes beyond ASCII");
    say(&request, "GET ");
    say(&request, target);
    int result = request.failed ? fail(answer, "out of memory") : ask(service, request.bytes, &body, answer);
    free(request.bytes);
    return result;
}

void edge_reclass_free(struct edge_reclass_answer *answer)
{
    free(answer->body);
    memset(answer, 0, sizeof *answer);
}

/* ---- values of a JSON object ---- */

static const char *skip_space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
        at++;
    return at;
}

/* Behind the string that begins at `at`; NULL where it does not end. */
static const char *skip_string(const char *at)
{
    for (at++; *at != '"'; at++) {
        if (*at == '\\')
            at++;
        if (*at == '\0')
            return NULL;
    }
    return at + 1;
}

/* Behind the value that begins at `at`; NULL where it does not end. */
static const char *skip_value(const char *at)
{
    size_t depth = 0;
    for (;;) {
        if (*at == '\0')
            return NULL;
        if (*at == '"') {
            at = skip_string(at);
            if (at == NULL || depth == 0)
                return at;
            continue;
        }
        if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            if (depth == 0)
                return at;
            if (--depth == 0)
                return at + 1;
        } else if (*at == ',' && depth == 0) {
            return at;
        }
        at++;
    }
}

static const char *find(const char *json, const char *key)
{
    size_t length = strlen(key);
    const char *at = json == NULL ? NULL : skip_space(json);
    if (at == NULL || *at != '{')
        return NULL;
    at = skip_space(at + 1);
    while (*at == '"') {
        const char *name = at + 1, *end = skip_string(at);
        if (end == NULL)
            return NULL;
        at = skip_space(end);
        if (*at != ':')
            return NULL;
        at = skip_space(at + 1);
        if ((size_t)(end - 1 - name) == length && memcmp(name, key, length) == 0)
            return at;
        at = skip_value(at);
        if (at == NULL)
            return NULL;
        at = skip_space(at);
        if (*at != ',')
            return NULL;
        at = skip_space(at + 1);
    }
    return NULL;
}

/* Four hexadecimal digits; -1 where they are none. */
static long hexadecimal(const char *at)
{
    long value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The character of an escape at `at` (behind the backslash) as bytes; how many, 0 where it is none. Moves `at` on. */
static size_t unescape(const char **at, char bytes[4])
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *known = **at == '\0' ? NULL : strchr(names, **at);
    if (known != NULL) {
        bytes[0] = values[known - names];
        (*at)++;
        return 1;
    }
    long code = **at == 'u' ? hexadecimal(*at + 1) : -1;
    if (code < 0)
        return 0;
    *at += 5;
    if (code >= 0xDC80 && code <= 0xDCFF) { /* a byte of a name that is not UTF-8 */
        bytes[0] = (char)(code - 0xDC00);
        return 1;
    }
    if (code >= 0xD800 && code <= 0xDBFF && (*at)[0] == '\\' && (*at)[1] == 'u') {
        long low = hexadecimal(*at + 2);
        if (low < 0xDC00 || low > 0xDFFF)
            return 0;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        *at += 6;
    }
    if (code == 0 || (code >= 0xD800 && code <= 0xDFFF))
        return 0;
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = length; i-- > 1; code >>= 6)
        bytes[i] = (char)(0x80 | (code & 0x3F));
    bytes[0] = (char)(first[length] | code);
    return length;
}

int edge_reclass_text(const char *json, const char *key, char *text, size_t size)
{
    const char *at = find(json, key);
    size_t length = 0;
    if (at == NULL || *at != '"' || skip_string(at) == NULL)
        return 0;
    for (at++; *at != '"';) {
        char bytes[4] = {*at};
        size_t count = 1;
        if (*at++ == '\\' && (count = unescape(&at, bytes)) == 0)
            return 0;
        if (size == 0 || length + count > size - 1)
            return -1;
        memcpy(text + length, bytes, count);
        length += count;
    }
    if (size == 0)
        return -1;
    text[length] = '\0';
    return 1;
}

int edge_reclass_number(const char *json, const char *key, double *number)
{
    const char *at = find(json, key);
    char *end;
    if (at == NULL || (*at != '-' && (*at < '0' || *at > '9')))
        return 0;
    double value = strtod(at, &end);
    if (end == at)
        return 0;
    *number = value;
    return 1;
}
