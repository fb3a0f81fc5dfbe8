/* Passes signals on to the build. The first of ^C, ^\, SIGTERM and SIGHUP asks the service to end it, so that what make
   says about it still comes; the next one ends this process at once, and hanging up ends the build. ^Z stops the build,
   and this process when that is done, so that nothing takes what is typed from the shell. What was ignored when this
   process began (nohup) stays so. The handler does what signal-safety(7) allows; other signals wait meanwhile. */
#include "client.h"

static const struct timespec stop_time = {1, 0}; /* for the service to stop a build; an older one says nothing of it */

#define SAYS(kind, name, signum) {signum, "{\"type\":\"" kind "\",\"signal\":\"" name "\"}\n"}
static const struct {
    int signum;
    const char *line;
} lines[] = {SAYS("cancel", "HUP", SIGHUP),   SAYS("cancel", "INT", SIGINT),     SAYS("cancel", "QUIT", SIGQUIT),
             SAYS("cancel", "TERM", SIGTERM), SAYS("signal", "USR1", SIGUSR1),   SAYS("signal", "USR2", SIGUSR2),
             SAYS("signal", "STOP", SIGTSTP), SAYS("signal", "WINCH", SIGWINCH), SAYS("signal", "CONT", SIGCONT)};
enum { CAUGHT = 8, LINES = 9 };
static int connection = -1;
static sigset_t handled, usual;
static volatile sig_atomic_t caught, sent, waits, stops;

static void pass_on(int signum) {
    for (int i = 0; i < LINES; i++)
        if (lines[i].signum == signum) /* where nobody hears it, closing the connection is the better word */
            (void)!send(connection, lines[i].line, strlen(lines[i].line), MSG_NOSIGNAL);
}

static void handle(int signum) {
    int error = errno;
    bool cancels = signum == SIGHUP || signum == SIGINT || signum == SIGQUIT || signum == SIGTERM;
    if (cancels && caught)
        die_by(signum);
    caught = cancels ? signum : caught;
    if (sent && !(signum == SIGTSTP && stops))
        pass_on(signum);
    stops = stops || (sent && signum == SIGTSTP);
    if (signum == SIGTSTP && !waits) /* the service may wait for who stops, too */
        stop();
    errno = error;
}

static void catch_one(int signum) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART, .sa_mask = handled}, before;
    if (sigaction(signum, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(signum, &action, NULL);
}

void catch_signals(int fd) {
    connection = fd;
    sigprocmask(SIG_BLOCK, NULL, &usual);
    sigemptyset(&handled);
    for (int i = 0; i < CAUGHT; i++)
        sigaddset(&handled, lines[i].signum);
    for (int i = 0; i < CAUGHT; i++)
        catch_one(lines[i].signum);
}

/* Hears that the whole request is on its way: before, there was nothing to say on the connection. */
void request_is_sent(void) {
    sigprocmask(SIG_BLOCK, &handled, NULL);
    sent = 1;
    if (caught)
        pass_on(caught);
    sigprocmask(SIG_SETMASK, &usual, NULL);
}

/* Returns when the connection can be read; signals are heard, and a stop that the service does not confirm is made. */
void await_input(void) {
    sigprocmask(SIG_BLOCK, &handled, NULL);
    for (int ready = -1; ready <= 0;) {
        waits = 1;
        ready = ppoll(&(struct pollfd){connection, POLLIN, 0}, 1, stops ? &stop_time : NULL, &usual);
        waits = 0;
        if (ready == 0)
            stop();
    }
    sigprocmask(SIG_SETMASK, &usual, NULL);
}

static void act_by_default(int signum) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signum);
    signal(signum, SIG_DFL);
    kill(getpid(), signum);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
}

/* Stops as if ^Z had never been caught; goes on, and has the build go on, when continued (SIGCONT). */
void stop(void) {
    if (!stops)
        return;
    stops = 0;
    act_by_default(SIGTSTP);
    catch_one(SIGTSTP);
    pass_on(SIGCONT);
    pass_on(SIGWINCH); /* the screen is not what it was */
}

void die_by(int signum) {
    act_by_default(signum);
    _exit(128 + signum);
}

/* Dies by the signal that was caught, if one was: a shell must see what ended its command. */
void finish(void) {
    if (caught)
        die_by(caught);
}
