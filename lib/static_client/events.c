/* The service's events: lines of JSON (RFC 8259), of which a few fields count. A line is read once; its strings are
   decoded where they stand, and end with a NUL there. */
#include "client.h"

enum { MAX_DEPTH = 900 };
#define BLANKS " \t\r\n"
#define DIGITS "0123456789"

struct value {
    enum { OTHER, STRING, INTEGER, TRUE, FALSE } kind;
    const char *at;
    size_t length; /* of a STRING */
};
/* What counts of an event: by depth, the member of the event, and of that. Strings of the lists are kept all. */
enum { TYPE, DATA, DATA_B64, CODE, TIMED_OUT, TIMEOUT_SEC, COMPARED, MESSAGE, BESIDE, FIELDS };
static const struct {
    int depth;
    const char *member, *below;
} known[FIELDS + LISTS] = {
    {1, "type", ""}, {1, "data", ""}, {1, "data_b64", ""}, {1, "code", ""}, {1, "timed_out", ""},
    {1, "timeout_sec", ""}, {1, "cwd_compared", ""}, {2, "error", "message"}, {2, "error", "beside"},
    [FIELDS + ENV_LEFT_OUT] = {2, "env_left_out", ""}, {2, "paths_left", ""}, {2, "path_mapping", ""},
};
struct reader {
    struct value fields[FIELDS];
    struct event *event;
    char *at;
};

static long four_digits(const char *at) {
    return strspn(at, DIGITS "abcdefABCDEF") < 4 ? -1 : strtol((char[5]){at[0], at[1], at[2], at[3]}, NULL, 16);
}

/* Writes the character whose four digits are at `from`, and moves behind them; returns where it ends, or NULL. Of the
   surrogates without another half only those are characters that stand for a byte (PEP 383). */
static char *decode_code(char *to, char **from) {
    static const long first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    long code = four_digits(*from), low = -1;
    if (code >= 0xD800 && code < 0xDC00 && strncmp(*from + 4, "\\u", 2) == 0)
        low = four_digits(*from + 6);
    if (low >= 0xDC00 && low < 0xE000)
        code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
    *from += code >= 0x10000 ? 10 : 4;
    *to = (char)(code & 0xFF);
    if (code < 0x80 || (code >= 0xD800 && code < 0xE000))
        return code < 0 || (code >= 0xD800 && (code < 0xDC80 || code >= 0xDD00)) ? NULL : to + 1;
    int length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--, code >>= 6)
        to[i] = (char)(0x80 | (code & 0x3F));
    *to = (char)(first[length] | code);
    return to + length;
}

static bool read_string(struct reader *reader, struct value *value) {
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char *from = reader->at + 1, *to = from;
    *value = (struct value){STRING, to, 0};
    while (*from != '"') {
        uint32_t code;
        size_t size = strcspn(from, "\"\\"), one = 1;
        for (size_t at = 0; at < size; at += one)
            if ((unsigned char)from[at] < ' ' || (one = character(from + at, &code)) == 0)
                return false;
        to = (char *)memmove(to, from, size) + size;
        from += size;
        const char *escape = *from == '\\' && from[1] != '\0' ? strchr(escapes, from[1]) : NULL;
        bool is_code = strncmp(from, "\\u", 2) == 0;
        if (*from != '"' && escape == NULL && !is_code)
            return false;
        if (escape != NULL)
            *to++ = meant[escape - escapes];
        from += escape != NULL || is_code ? 2 : 0;
        if (is_code && (to = decode_code(to, &from)) == NULL)
            return false;
    }
    reader->at = from + 1;
    value->length = (size_t)(to - value->at);
    *to = '\0';
    return true;
}

static bool read_number(struct reader *reader, struct value *value) {
    char *first = reader->at + (*reader->at == '-'), *end = first + (*first == '0' ? 1 : strspn(first, DIGITS));
    bool is_number = end > first;
    size_t part = *end == '.' ? strspn(end + 1, DIGITS) : 0;
    end += part > 0 ? 1 + part : 0;
    size_t sign = *end == 'e' || *end == 'E' ? strspn(end + 1, "+-") + 1 : 0;
    size_t power = sign == 1 || sign == 2 ? strspn(end + sign, DIGITS) : 0;
    *value = (struct value){part > 0 || power > 0 ? OTHER : INTEGER, reader->at, 0};
    reader->at = end + (power > 0 ? sign + power : 0);
    return is_number;
}

static bool take(struct reader *reader, const char *word) {
    bool is_there = strncmp(reader->at, word, strlen(word)) == 0;
    reader->at += is_there ? strlen(word) : 0;
    return is_there;
}

static void keep(struct reader *reader, int depth, const char *member, const char *below, struct value value) {
    for (int i = 0; i < FIELDS + LISTS; i++) {
        if (known[i].depth != depth || strcmp(known[i].member, member) != 0 || strcmp(known[i].below, below) != 0)
            continue;
        if (i < FIELDS)
            reader->fields[i] = value;
        else if (value.kind == STRING)
            append(&reader->event->lists[i - FIELDS], value.at);
    }
}

/* Reads a value and the blanks around it, which is `below` the `member` of the event; false where there is none. */
static bool read_value(struct reader *reader, int depth, const char *member, const char *below) {
    struct value value = {OTHER, "", 0}, name = value;
    reader->at += strspn(reader->at, BLANKS);
    const char *close = take(reader, "{") ? "}" : take(reader, "[") ? "]" : NULL;
    reader->at += close == NULL ? 0 : strspn(reader->at, BLANKS);
    if (close != NULL && !take(reader, close)) {
        do {
            reader->at += strspn(reader->at, BLANKS);
            if (*close == '}' && (*reader->at != '"' || !read_string(reader, &name)))
                return false;
            reader->at += strspn(reader->at, BLANKS);
            if (depth == MAX_DEPTH || (*close == '}' && !take(reader, ":")) ||
                !read_value(reader, depth + 1, depth == 0 ? name.at : member, depth == 0 ? "" : name.at))
                return false;
        } while (take(reader, ","));
        if (!take(reader, close))
            return false;
    } else if (close == NULL && *reader->at == '"') {
        if (!read_string(reader, &value))
            return false;
    } else if (close == NULL && !take(reader, "null")) {
        value.kind = take(reader, "true") ? TRUE : take(reader, "false") ? FALSE : OTHER;
        if (value.kind == OTHER && !read_number(reader, &value))
            return false;
    }
    keep(reader, depth, member, below, value);
    reader->at += strspn(reader->at, BLANKS);
    return true;
}

/* Decodes base64 (RFC 4648) where it stands; false where it is none. */
static bool decode_base64(const char *from, char *to, size_t *length) {
    unsigned bits = 0;
    size_t count = 0;
    for (; *from != '\0' && *from != '='; from++, count++) {
        int digit = *from >= 'A' && *from <= 'Z' ? *from - 'A' : *from >= 'a' && *from <= 'z' ? *from - 'a' + 26
                    : *from >= '0' && *from <= '9' ? *from - '0' + 52 : *from == '+' ? 62 : *from == '/' ? 63 : -1;
        if (digit < 0)
            return false;
        bits = bits << 6 | (unsigned)digit;
        if (count % 4 > 0)
            *to++ = (char)(bits >> (6 - count % 4 * 2));
    }
    *length = count / 4 * 3 + (count % 4 == 0 ? 0 : count % 4 - 1);
    return count % 4 != 1 && from[strspn(from, "=")] == '\0' && (count + strlen(from)) % 4 == 0;
}

/* Reads one line of the service, which a NUL ends; NOTHING is what this version does not know. Returns what is wrong
   with it, or NULL. */
const char *read_event(char *line, size_t length, struct event *event) {
    struct reader reader = {.event = event, .at = line};
    struct value *fields = reader.fields, *type = &fields[TYPE], *data = &fields[DATA_B64];
    char first = line[strspn(line, BLANKS)];
    *event = (struct event){.kind = NOTHING};
    if (strspn(line, BLANKS "\v\f") == length)
        return NULL;
    if (!read_value(&reader, 0, "", "") || reader.at != line + length)
        return "an event that is not JSON";
    if (first != '{')
        return "an event that is not a JSON object";
    if (type->kind != STRING)
        return "an event without a type";
    if (is_among(type->at, (const char *[]){"stdout", "stderr", "output", NULL}, (const char *[]){NULL})) {
        bool is_usable = data->kind == STRING && decode_base64(data->at, (char *)data->at, &data->length);
        if (data->kind != STRING)
            is_usable = (data = &fields[DATA])->kind == STRING;
        *event = (struct event){.kind = OUTPUT, .fd = strcmp(type->at, "stderr") == 0 ? 2 : 1};
        event->data = data->at;
        event->length = data->length;
        return is_usable ? NULL : "an output event without usable data";
    }
    event->kind = strcmp(type->at, "stopped") == 0 ? STOPPED : strcmp(type->at, "exit") == 0 ? EXIT : NOTHING;
    if (event->kind == EXIT && fields[CODE].kind != INTEGER)
        return "an exit event without a code";
    long long code = fields[CODE].kind == INTEGER ? strtoll(fields[CODE].at, NULL, 10) : 1;
    event->code = code >= 0 && code <= 255 ? (int)code : 1;
    event->timed_out = fields[TIMED_OUT].kind == TRUE;
    event->timeout_sec = fields[TIMEOUT_SEC].kind == INTEGER ? strtoll(fields[TIMEOUT_SEC].at, NULL, 10) : 0;
    event->not_compared = fields[COMPARED].kind == FALSE;
    event->beside = fields[BESIDE].kind == TRUE;
    event->message = fields[MESSAGE].kind == STRING ? fields[MESSAGE].at : "None";
    return NULL;
}
