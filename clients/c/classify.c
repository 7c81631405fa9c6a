/* classify SOCKET [-j] [-s] FILE…: a line for each file, by the service that listens at SOCKET.
 *     cc -std=c11 -O2 -o classify classify.c edge-reclass.c
 * -j prints the service's JSON; -s sends the files' content, for those that the service may not read.
 * Exit codes: 0 all have an answer, 2 wrong usage, 3 some have none, 5 the service cannot be used. */
#include <stdio.h>
#include <string.h>

#include "edge-reclass.h"

int main(int count, char **words)
{
    int json = 0, content = 0, failed = 0, i = 2;
    for (; i < count && words[i][0] == '-'; i++) {
        if (strcmp(words[i], "-j") == 0)
            json = 1;
        else if (strcmp(words[i], "-s") == 0)
            content = 1;
        else
            break;
    }
    if (i >= count || words[i][0] == '-') {
        fprintf(stderr, "usage: %s SOCKET [-j] [-s] FILE...\n", words[0]);
        return 2;
    }
    struct edge_reclass service = EDGE_RECLASS(words[1]);
    for (; i < count; i++) {
        struct edge_reclass_answer answer;
        char status[32] = "", genre[64] = "-", error[512] = "";
        double confidence = 0;
        int good = content ? edge_reclass_classify_content(&service, words[i], &answer)
                           : edge_reclass_classify(&service, words[i], &answer);
        if (good != 0) {
            fprintf(stderr, "%s: %s\n", words[i], answer.error);
            int lost = answer.status == 0 || answer.status >= 500;
            edge_reclass_free(&answer);
            if (lost && !content)
                return 5;
            failed = 1;
            continue;
        }
        edge_reclass_text(answer.body, "status", status, sizeof status);
        edge_reclass_text(answer.body, "genre", genre, sizeof genre);
        edge_reclass_text(answer.body, "error", error, sizeof error);
        edge_reclass_number(answer.body, "confidence", &confidence);
        if (json)
            printf("%s\n", answer.body);
        else
            printf("%s\t%s\t%.2f\t%s%s%s\n", status, genre, confidence, words[i], error[0] ? "\t" : "", error);
        failed |= error[0] != '\0';
        edge_reclass_free(&answer);
    }
    return failed ? 3 : 0;
}
