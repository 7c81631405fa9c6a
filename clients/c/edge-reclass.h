/* A client of `edge-reclass serve` for C programs: this header, edge-reclass.c, and libc.
 *
 *     struct edge_reclass service = EDGE_RECLASS("/run/edge-reclass/edge-reclass.sock");
 *     struct edge_reclass_answer answer;
 *     char genre[64];
 *     if (edge_reclass_classify(&service, "/music/song.mp3", &answer) == 0 &&
 *         edge_reclass_text(answer.body, "genre", genre, sizeof genre) > 0)
 *         printf("%s\n", genre);
 *     edge_reclass_free(&answer);
 *
 * Each call opens the service's Unix socket, asks, and closes it. Nothing is kept between calls, and there are no global
 * variables: any number of threads may call at the same time.
 */
#ifndef EDGE_RECLASS_H
#define EDGE_RECLASS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where the service is, and how long it is waited for. */
struct edge_reclass {
    const char *socket;   /* path of its Unix socket */
    const char *token;    /* what its --token-file holds, or NULL */
    double timeout;       /* seconds for one call, with the time that the track waits for its turn */
    double patience;      /* seconds that a busy service is asked again; 0: not at all */
};

#define EDGE_RECLASS(path) { (path), NULL, 300.0, 60.0 }

struct edge_reclass_answer {
    int status;        /* of HTTP: 200 with a verdict, 403 outside the roots, 503 busy, …; 0: there was no answer */
    char *body;        /* JSON with a zero behind it, NULL where there is none */
    size_t length;     /* bytes of it, without the zero */
    char error[256];   /* what went wrong, in words; empty if nothing did */
};

/* Each call returns 0 for an answer of status 200, and -1 otherwise; `answer` is always to be freed.
 * The verdict of a bad file is an answer, too: its "status" says what is wrong (docs/verdicts.md). */

/* The service reads the file itself; it has to lie below one of its roots. */
int edge_reclass_classify(const struct edge_reclass *service, const char *path, struct edge_reclass_answer *answer);

/* The file is read here and its content is sent. */
int edge_reclass_classify_content(const struct edge_reclass *service, const char *path,
                                  struct edge_reclass_answer *answer);

/* Samples, interleaved: `format` is "s16le" or "f32le" (full scale 1), `bytes` their size in all. */
int edge_reclass_classify_pcm(const struct edge_reclass *service, const void *samples, size_t bytes, const char *format,
                              int rate, int channels, struct edge_reclass_answer *answer);

/* Any other route, such as edge_reclass_get(&service, "/v1/version", &answer). */
int edge_reclass_get(const struct edge_reclass *service, const char *target, struct edge_reclass_answer *answer);

/* Give back what an answer holds. */
void edge_reclass_free(struct edge_reclass_answer *answer);

/* A value of a JSON object by its key, not those of objects within it.
 * Both return 1 where it is there, 0 where it is not, null, or of another type.
 * edge_reclass_text returns -1 where `size` is too small for it (with the zero behind it). A path that is not valid
 * UTF-8 comes out as its own bytes. */
int edge_reclass_text(const char *json, const char *key, char *text, size_t size);
int edge_reclass_number(const char *json, const char *key, double *number);

#ifdef __cplusplus
}
#endif
#endif
