/* Runs a build on the host, and prints, fails and ends as that build does. */
#include "client.h"

enum { RECEIVE_BYTES = 256 << 10 };

/* Becomes the tool of the container itself. Nothing has run on the host, so nothing is built twice. It gets its full
   path as its name: make calls itself by it, `$(MAKE)`, and so stays on this side throughout. */
static _Noreturn void run_locally(const struct options *options, const char *why, bool told) {
    if (options->fallback == NULL)
        give_up("%s", why);
    if (told)
        say(format("%s; running %s here\n", why, options->fallback));
    options->command[0] = (char *)options->fallback;
    execv(options->fallback, options->command);
    give_up("build-cli: cannot run %s: %s", options->fallback, strerror(errno));
}

/* Sends the request; where a service has refused before it read everything, the refusal is there to read. */
static void send_request(int connection, const struct options *options) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct iovec rest;
    struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1, .msg_control = control};
    int descriptors[3], count;
    rest.iov_base = request_of(options, &rest.iov_len, descriptors, &count);
    size_t size = (size_t)count * sizeof *descriptors;
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(control, &header, sizeof header);
    memcpy(CMSG_DATA((struct cmsghdr *)control), descriptors, size);
    message.msg_controllen = count > 0 ? CMSG_SPACE(size) : 0;
    for (ssize_t gone; rest.iov_len > 0; rest.iov_len -= (size_t)gone, message.msg_controllen = 0) {
        if ((gone = sendmsg(connection, &message, MSG_NOSIGNAL)) < 0 && (errno == EPIPE || errno == ECONNRESET))
            return;
        if (gone < 0)
            give_up("build-cli: %s", strerror(errno));
        rest.iov_base = (char *)rest.iov_base + gone;
    }
}

static _Noreturn void give_up_reading(const char *why) {
    finish();
    give_up("invalid response from build-service: %s", why);
}

/* Acts on the whole lines that were received, `length` bytes; returns how many bytes they were, -1 at the exit. */
static ptrdiff_t act_on(char *received, size_t length, struct event *event) {
    char *line = received, *end;
    while ((end = memchr(line, '\n', length - (size_t)(line - received))) != NULL) {
        *end = '\0';
        const char *wrong = end - line > MAX_EVENT_BYTES ? TOO_LONG : read_event(line, (size_t)(end - line), event);
        if (wrong != NULL)
            give_up_reading(wrong);
        if (event->kind == OUTPUT)
            write_all(event->fd, event->data, event->length);
        if (event->kind == STOPPED)
            stop();
        if (event->kind == EXIT)
            return -1;
        line = end + 1;
    }
    if (length - (size_t)(line - received) > MAX_EVENT_BYTES)
        give_up_reading(TOO_LONG);
    return line - received;
}

/* Writes the build's output where this process's own would go, until the build's exit. */
static void relay(int connection, struct event *event) {
    char *received = checked(malloc(MAX_EVENT_BYTES + RECEIVE_BYTES + 1));
    size_t length = 0;
    for (ptrdiff_t done = 0; done >= 0;) {
        await_input();
        ssize_t got = recv(connection, received + length, RECEIVE_BYTES, 0);
        if (got == 0 || (got < 0 && (errno == ECONNRESET || errno == EPIPE)))
            give_up_reading("the connection ended before the build's exit");
        if (got < 0)
            give_up("build-cli: %s", strerror(errno));
        bool whole = memchr(received + length, '\n', (size_t)got) != NULL;
        length += (size_t)got;
        done = whole || length > MAX_EVENT_BYTES ? act_on(received, length, event) : 0;
        if (done > 0)
            memmove(received, received + done, length -= (size_t)done);
    }
}

int main(int argc, char **argv) {
    struct options options = {0};
    struct event end = {0};
    char *refusal;
    for (int fd = 0; fd <= 2;) /* no descriptor of this program takes the place of a closed standard one */
        if ((fd = open("/dev/null", O_RDONLY)) > 2 || fd < 0)
            fd = close(fd) + 3;
    struct stat input;
    if (fstat(0, &input) == 0 && S_ISDIR(input.st_mode))
        give_up("build-cli: %s", "standard input is a directory");
    const char *answer = parse(&options, argv + (argc > 0));
    if (answer != NULL) {
        write_all(1, answer, strlen(answer));
        return 0;
    }
    int connection = connect_to_service(options.socket_path, &refusal);
    if (connection < 0)
        run_locally(&options, refusal, connection != NO_SOCKET);
    catch_signals(connection);
    send_request(connection, &options);
    request_is_sent();
    relay(connection, &end);
    close(connection);
    finish();
    if (end.beside && options.fallback != NULL)
        run_locally(&options, end.message, true);
    tell(&end, &options);
    long long seconds = end.timeout_sec != 0 ? end.timeout_sec : options.timeout_sec;
    const char *told = seconds != 0 ? format("build timed out after %llds\n", seconds) : "build timed out\n";
    if (end.timed_out)
        say(told);
    return end.code;
}
