/* The command line, and of the environment what goes along with the request. */
#include "client.h"

enum { TIMEOUT, SOCKET, REQUEST_ID, FALLBACK, STDIO, ENV, OPTIONS, MAX_TIMEOUT_DIGITS = 9 };
static const char *const names[] = {"--timeout", "--socket", "--request-id", "--fallback", "--stdio", "--env"};
#define DIGITS "0123456789"
#define LETTERS "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static long timeout_of(const char *value, const char *name) {
    if (value == NULL)
        return 0;
    if (value[strspn(value, DIGITS)] != '\0' || strlen(value) > MAX_TIMEOUT_DIGITS || atol(value) < 1)
        give_up("build-cli: %s must be a whole number of seconds, at least 1", name);
    return atol(value);
}

static const char *stdio_of(const char *value, const char *name) {
    if (value != NULL && strcmp(value, "events") != 0 && strcmp(value, "pass") != 0)
        give_up("build-cli: %s takes events or pass", name);
    return value;
}

static char *before_equals(const char *entry) { return checked(strndup(entry, strcspn(entry, "="))); }

static void set(struct options *options, char *name, const char *value, bool asked, bool again) {
    size_t at = 0;
    while (at < options->variables && strcmp(options->env[at].name, name) != 0)
        at++;
    if (at < options->variables && !again)
        return;
    options->variables += at == options->variables;
    options->env = checked(realloc(options->env, options->variables * sizeof *options->env));
    options->env[at] = (struct variable){name, value, asked};
}

/* Tells whether BUILD_SERVICE_ENV asks for the name: by itself, or by its beginning and a `*`. */
static bool is_asked_for(const char *name) {
    static const char blanks[] = ", \t\n\r\f\v\x1c\x1d\x1e\x1f";
    size_t size, length = strlen(name);
    bool is_name = length > 0 && strspn(name, LETTERS DIGITS) == length && strchr(DIGITS, *name) == NULL;
    const char *word = variable("BUILD_SERVICE_ENV");
    for (word = word == NULL ? "" : word; *(word += strspn(word, blanks)) != '\0'; word += size) {
        size = strcspn(word, blanks);
        bool is_beginning = is_name && word[size - 1] == '*' && strncmp(word, name, size - 1) == 0;
        if (is_beginning || (size == length && strncmp(word, name, size) == 0))
            return true;
    }
    return false;
}

/* Takes one option; returns behind its last word. `values` are those of the options that were named last. */
static char **take_option(struct options *options, char **words, const char *values[OPTIONS]) {
    char *name = before_equals(*words), *value = strchr(*words, '=');
    int option = 0;
    while (option < OPTIONS && strcmp(names[option], name) != 0)
        option++;
    if (option == OPTIONS)
        give_up("build-cli: unknown option %s\n%s", name, USAGE);
    value = value == NULL ? *++words : value + 1;
    if (value == NULL)
        give_up("build-cli: %s needs a value\n%s", name, USAGE);
    if (option == ENV && (*value == '=' || strchr(value, '=') == NULL))
        give_up("build-cli: --env takes %s", "NAME=VALUE");
    if (option == ENV)
        set(options, before_equals(value), strchr(value, '=') + 1, true, true);
    values[option] = *value == '\0' ? NULL : value;
    return words + 1;
}

/* Takes everything up to the command; returns what was asked for in place of a build, or NULL. */
const char *parse(struct options *options, char **words) {
    static const char *const forwarded[] = FORWARDED, *const forwarded_prefixes[] = FORWARDED_PREFIXES;
    const char *values[OPTIONS] = {NULL};
    while (*words != NULL && **words == '-' && strcmp(*words, "--") != 0) {
        if (strcmp(*words, "-h") == 0 || strcmp(*words, "--help") == 0)
            return USAGE "\n";
        if (strcmp(*words, "--version") == 0)
            return "build-cli " VERSION "\n";
        words = take_option(options, words, values);
    }
    options->command = words + (*words != NULL && strcmp(*words, "--") == 0);
    if (*options->command == NULL)
        give_up("build-cli: no command\n%s", USAGE);
    options->timeout_sec = timeout_of(values[TIMEOUT], "--timeout");
    if (options->timeout_sec == 0)
        options->timeout_sec = timeout_of(variable("BUILD_SERVICE_TIMEOUT"), "BUILD_SERVICE_TIMEOUT");
    options->socket_path = values[SOCKET];
    options->request_id = values[REQUEST_ID];
    options->fallback = values[FALLBACK];
    options->stdio = stdio_of(values[STDIO], "--stdio");
    if (options->stdio == NULL)
        options->stdio = stdio_of(variable("BUILD_SERVICE_STDIO"), "BUILD_SERVICE_STDIO");
    for (char **entry = environ; *entry != NULL; entry++) {
        char *name = before_equals(*entry), *value = strchr(*entry, '=');
        bool asked = is_asked_for(name);
        if (value != NULL && (asked || is_among(name, forwarded, forwarded_prefixes)))
            set(options, name, value + 1, asked, false); /* the first of a name counts */
    }
    return NULL;
}
