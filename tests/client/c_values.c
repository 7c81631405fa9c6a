/* Reads JSON NUL key NUL … from standard input; prints for each what edge_reclass_text and _number find, hexadecimal. */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge-reclass.h"

int main(int count, char **words)
{
    size_t room = 1 << 20, size = count > 1 ? (size_t)atoi(words[1]) : 4096;
    char *all = calloc(room, 1), *text = malloc(size ? size : 1);
    if (all == NULL || text == NULL)
        return 1;
    size_t length = fread(all, 1, room - 1, stdin);
    for (char *at = all; at < all + length;) {
        char *json = strdup(at); /* of its own, so that a sanitizer sees a byte too far */
        at += strlen(at) + 1;
        char *key = strdup(at);
        at += strlen(at) + 1;
        double number = 0;
        int has_text = edge_reclass_text(json, key, text, size), has_number = edge_reclass_number(json, key, &number);
        printf("%d ", has_text);
        for (const char *c = text; has_text == 1 && *c; c++)
            printf("%02x", (unsigned)(unsigned char)*c);
        printf(" %d %.17g\n", has_number, number);
        free(json);
        free(key);
    }
    free(all);
    free(text);
    return 0;
}
