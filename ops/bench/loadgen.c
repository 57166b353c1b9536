/* Opens many streams of server-sent events at once and reads them at as little cost as it can.
 *
 *   loadgen HOST PORT REQUESTS MODE [NAME=NUMBER ...] [mark=TEXT]
 *
 * REQUESTS is a file of request texts, each behind its length (32 bits, little-endian); they are used in turn.
 *
 *   hold    open n= streams, at most inflight= unanswered at a time (or rate= a second), and read until told to
 *           stop, or, with finish=1, until the server has ended each
 *   churn   open rate= streams a second and close each hold_ms= later, until told to stop
 *
 * An event carries a stamp in its text: ~T, the 16 hexadecimal digits of CLOCK_MONOTONIC's nanoseconds when it
 * was handed over, a dot, and the 8 of its place in its stream, which counts by one. ~W is a warm-up event: it
 * has a place, but is not measured. A frame's latency ends when read(2) returned its last byte.
 *
 * On stdin: "expect N" ends it when N events have come, "stop" or the end of the input at once.
 * On stdout, JSON lines: "ready" when every stream has answered, and "end" with what was counted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STAMP 27           /* bytes of a stamp */
#define ROOM (256 * 1024)  /* bytes read at once */
#define BUCKETS (64 * 64)  /* 64 for each power of two: 1.6 % wide */

enum state { FREE, CONNECTING, HEAD, ANSWERED, BODY, CLOSED };

struct stream {
    int fd;
    uint8_t state, carried, refused, marked;
    char carry[STAMP]; /* the beginning of a stamp, or of a head's end, that the next read completes */
    uint32_t request, last, events;
    uint64_t began, first, mark, token, end, bytes;
};

struct histogram {
    uint64_t count, sum, max, buckets[BUCKETS];
};

static struct stream *streams;
static char **requests;
static uint32_t *request_bytes;
static uint32_t request_count;
static struct sockaddr_in address;
static int poller;
static char buffer[STAMP + ROOM];
static struct histogram latency, joining;
static uint64_t total, measured, holes, doubles, bytes, opened, answered, refused, lost, closed, expected = -1;
static uint64_t active; /* connecting or without an answer yet */
static const char *mark;
static int stopping, once;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void add(struct histogram *h, uint64_t value) {
    uint32_t power = value < 64 ? 0 : 63 - __builtin_clzll(value);
    uint32_t place = value < 64 ? value : (power - 5) * 64 + ((value >> (power - 6)) & 63);
    h->buckets[place]++;
    h->count++;
    h->sum += value;
    if (value > h->max) h->max = value;
}

static uint64_t upper(uint32_t place) {
    return place < 64 ? place : (uint64_t)(64 + place % 64 + 1) << (place / 64 - 1);
}

static void print_histogram(const char *name, struct histogram *h) {
    printf(", \"%s\": {\"count\": %lu, \"sum\": %lu, \"max\": %lu, \"buckets\": [", name, h->count, h->sum, h->max);
    const char *comma = "";
    for (uint32_t place = 0; place < BUCKETS; place++)
        if (h->buckets[place]) {
            printf("%s[%lu, %lu]", comma, upper(place), h->buckets[place]);
            comma = ", ";
        }
    printf("]}");
}

static int digits(const char *text, int count, uint64_t *value) {
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        unsigned c = (unsigned char)text[i];
        unsigned digit = c - '0' < 10 ? c - '0' : c - 'a' < 6 ? c - 'a' + 10 : 16;
        if (digit > 15) return 0;
        sum = sum << 4 | digit;
    }
    *value = sum;
    return 1;
}

static void take(struct stream *s, int counts, uint64_t stamp, uint32_t place, uint64_t now) {
    if (s->last && place <= s->last) {
        if (!once) doubles++; /* with once=1 a later frame may repeat the text of earlier ones */
        return;
    }
    if (s->last && place > s->last + 1) holes += place - s->last - 1;
    if (!s->last) s->token = now;
    s->last = place;
    s->events++;
    total++;
    if (counts) {
        measured++;
        add(&latency, now > stamp ? now - stamp : 0);
    }
}

/* Looks for stamps; keeps the beginning of one that is not whole. */
static void scan(struct stream *s, char *text, size_t size, uint64_t now) {
    char *end = text + size, *at = text;
    s->carried = 0;
    while ((at = memchr(at, '~', end - at))) {
        if (end - at < STAMP) {
            s->carried = end - at;
            memcpy(s->carry, at, s->carried);
            return;
        }
        uint64_t stamp, place;
        if ((at[1] == 'T' || at[1] == 'W') && at[18] == '.' && digits(at + 2, 16, &stamp) &&
            digits(at + 19, 8, &place)) {
            take(s, at[1] == 'T', stamp, place, now);
            at += STAMP;
        } else
            at++;
    }
}

static void leave(struct stream *s) {
    if (s->state == CONNECTING || s->state == HEAD || s->state == ANSWERED) active--;
    close(s->fd);
    s->state = CLOSED;
    closed++;
    s->end = now_ns();
}

static void refuse(struct stream *s) {
    refused++;
    s->refused = 1;
    leave(s);
}

static void start(struct stream *s, uint32_t request) {
    memset(s, 0, sizeof *s);
    s->request = request % request_count;
    s->began = now_ns();
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) {
        perror("socket");
        exit(1);
    }
    s->state = CONNECTING;
    opened++;
    active++;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = s};
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        refuse(s);
        return;
    }
    epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &event);
}

static void ask(struct stream *s) {
    uint32_t size = request_bytes[s->request];
    if (send(s->fd, requests[s->request], size, MSG_NOSIGNAL) != (ssize_t)size) {
        refuse(s);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(poller, EPOLL_CTL_MOD, s->fd, &event);
    s->state = HEAD;
}

static void body(struct stream *s, char *text, size_t size, uint64_t now) {
    if (!size) return;
    if (s->state == ANSWERED) {
        s->state = BODY;
        s->first = now;
        active--;
        answered++;
        add(&joining, now - s->began);
    }
    if (mark && !s->marked && memmem(text, size, mark, strlen(mark))) {
        s->marked = 1;
        s->mark = now;
    }
    scan(s, text, size, now);
}

static void head(struct stream *s, char *text, size_t size, uint64_t now) {
    char *end = memmem(text, size, "\r\n\r\n", 4);
    if (!s->refused && !s->carried && (size < 12 || memcmp(text + 8, " 200", 4))) {
        fprintf(stderr, "refused: %.*s\n", (int)(size < 300 ? size : 300), text);
        refuse(s);
        return;
    }
    if (!end) {
        s->carried = size < 3 ? size : 3;
        memcpy(s->carry, text + size - s->carried, s->carried);
        return;
    }
    s->carried = 0;
    s->state = ANSWERED;
    body(s, end + 4, text + size - end - 4, now);
}

static void hear(struct stream *s) {
    if (s->state == CONNECTING) {
        ask(s);
        return;
    }
    char *text = buffer + STAMP;
    ssize_t got = recv(s->fd, text, ROOM, 0);
    uint64_t now = now_ns();
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN) return;
        if (s->state != BODY) {
            refuse(s);
            return;
        }
        lost++;
        leave(s);
        return;
    }
    bytes += got;
    s->bytes += got;
    memcpy(text - s->carried, s->carry, s->carried);
    size_t size = got + s->carried;
    text -= s->carried;
    if (s->state == HEAD)
        head(s, text, size, now);
    else
        body(s, text, size, now);
}

static void obey(void) {
    static char line[256];
    static size_t used;
    ssize_t got = read(0, line + used, sizeof line - used - 1);
    if (got <= 0) {
        if (got == 0) stopping = 1;
        return;
    }
    used += got;
    line[used] = 0;
    char *newline;
    while ((newline = strchr(line, '\n'))) {
        if (!strncmp(line, "stop", 4)) stopping = 1;
        if (!strncmp(line, "expect ", 7)) expected = strtoull(line + 7, 0, 10);
        used -= newline + 1 - line;
        memmove(line, newline + 1, used + 1);
    }
}

static void read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t size, room = 0;
    if (!file) {
        perror(path);
        exit(1);
    }
    while (fread(&size, 4, 1, file) == 1) {
        if (request_count == room) {
            room = room ? room * 2 : 64;
            requests = realloc(requests, room * sizeof *requests);
            request_bytes = realloc(request_bytes, room * sizeof *request_bytes);
        }
        requests[request_count] = malloc(size);
        request_bytes[request_count] = size;
        if (fread(requests[request_count++], 1, size, file) != size) exit(1);
    }
    fclose(file);
}

static void print_streams(uint32_t count) {
    printf(", \"streams\": [");
    for (uint32_t i = 0; i < count; i++) {
        struct stream *s = &streams[i];
        printf("%s[%u, %lu, %lu, %lu, %lu, %lu]", i ? ", " : "", s->events, s->bytes, s->first ? s->first - s->began : 0,
               s->mark ? s->mark - s->began : 0, s->token ? s->token - s->began : 0, s->end ? s->end - s->began : 0);
    }
    printf("]");
}

int main(int argc, char **argv) {
    uint32_t n = 1, inflight = 64, hold_ms = 1000, finish = 0, details = 0;
    double rate = 0;
    if (argc < 5) return 2;
    int churning = !strcmp(argv[4], "churn");
    for (int i = 5; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) return 2;
        *value++ = 0;
        if (!strcmp(argv[i], "n")) n = atoi(value);
        else if (!strcmp(argv[i], "inflight")) inflight = atoi(value);
        else if (!strcmp(argv[i], "rate")) rate = atof(value);
        else if (!strcmp(argv[i], "hold_ms")) hold_ms = atoi(value);
        else if (!strcmp(argv[i], "finish")) finish = atoi(value);
        else if (!strcmp(argv[i], "once")) once = atoi(value);
        else if (!strcmp(argv[i], "details")) details = atoi(value);
        else if (!strcmp(argv[i], "mark")) mark = value;
        else return 2;
    }
    setvbuf(stdout, 0, _IOLBF, 1 << 16);
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(argv[2]));
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    read_requests(argv[3]);
    uint32_t slots = churning ? (uint32_t)(rate * hold_ms / 1000 * 4) + 64 : n;
    streams = calloc(slots, sizeof *streams);
    poller = epoll_create1(0);
    fcntl(0, F_SETFL, O_NONBLOCK);
    struct epoll_event events[512], control = {.events = EPOLLIN, .data.ptr = 0};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &control);

    uint64_t began = now_ns(), hold = (uint64_t)hold_ms * 1000000u, eldest = 0;
    int told = 0;
    while (!stopping && total < expected && !(finish && closed == n)) {
        uint64_t now = now_ns();
        int timeout = 1000;
        if (churning) {
            while (eldest < opened && now - streams[eldest % slots].began >= hold) {
                struct stream *s = &streams[eldest++ % slots];
                if (s->state != CLOSED) leave(s);
            }
            timeout = 1;
        }
        uint64_t due = rate > 0 ? (uint64_t)((now - began) * rate / 1e9) + 1 : (uint64_t)-1;
        while (churning ? opened < due && opened - eldest < slots
                        : opened < n && opened < due && active < inflight)
            start(&streams[opened % slots], (uint32_t)opened);
        if (rate > 0 && opened < n) timeout = 1;
        if (!told && !churning && answered + refused >= n) {
            told = 1;
            printf("{\"at\": \"ready\", \"answered\": %lu, \"refused\": %lu, \"seconds\": %.4f}\n", answered, refused,
                   (now_ns() - began) / 1e9);
            fflush(stdout);
        }
        int count = epoll_wait(poller, events, 512, timeout);
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr) hear(events[i].data.ptr);
            else obey();
    }
    double seconds = (now_ns() - began) / 1e9;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    uint64_t least = -1, most = 0;
    for (uint32_t i = 0; i < slots && i < opened; i++) {
        if (streams[i].events < least) least = streams[i].events;
        if (streams[i].events > most) most = streams[i].events;
    }
    printf("{\"at\": \"end\", \"opened\": %lu, \"answered\": %lu, \"refused\": %lu, \"lost\": %lu, \"events\": %lu, "
           "\"measured\": %lu, \"holes\": %lu, \"doubles\": %lu, \"least\": %lu, \"most\": %lu, \"bytes\": %lu, "
           "\"seconds\": %.4f, \"cpu_seconds\": %.4f",
           opened, answered, refused, lost, total, measured, holes, doubles, opened ? least : 0, most, bytes, seconds, cpu);
    print_histogram("latency", &latency);
    print_histogram("joining", &joining);
    if (details) print_streams(slots < opened ? slots : (uint32_t)opened);
    printf("}\n");
    fflush(stdout);
    /* Closing the streams costs the server something, which is not to be measured: not before it is allowed. */
    char rest[64];
    fcntl(0, F_SETFL, 0);
    while (read(0, rest, sizeof rest) > 0) {
    }
    return 0;
}
