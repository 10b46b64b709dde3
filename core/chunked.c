#include "core/http1.h"

/*
 * One table of states and kinds of bytes holds the whole grammar of RFC 9112, 7.1 but for the content itself, which is handed
 * out in pieces. What has no entry is an error. Blanks are where BWS and OWS allow them, and nowhere else.
 */
enum chunk_state {
	CHUNK_SIZE_FIRST, /* 0: where a message begins */
	CHUNK_SIZE,
	CHUNK_EXT_BLANK,      /* blanks before ';' or '=' decide nothing yet */
	CHUNK_EXT_NAME_FIRST, /* behind ';' */
	CHUNK_EXT_NAME,
	CHUNK_EXT_NAME_BLANK,
	CHUNK_EXT_VALUE_FIRST, /* behind '=' */
	CHUNK_EXT_VALUE,
	CHUNK_EXT_QUOTED,
	CHUNK_EXT_ESCAPE,
	CHUNK_EXT_QUOTED_END,
	CHUNK_SIZE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	CHUNK_LINE_FIRST, /* of a trailer field, or the end */
	CHUNK_TRAILER_NAME,
	CHUNK_TRAILER_VALUE,
	CHUNK_TRAILER_LF,
	CHUNK_END_LF,
	CHUNK_END,
	CHUNK_BAD,
	CHUNK_STATE_COUNT,
};

enum byte_kind {
	BYTE_CONTROL, /* never allowed */
	BYTE_CR,
	BYTE_LF,
	BYTE_BLANK,
	BYTE_HEX, /* a tchar too */
	BYTE_TCHAR,
	BYTE_COLON,
	BYTE_SEMICOLON,
	BYTE_EQUALS,
	BYTE_QUOTE,
	BYTE_BACKSLASH,
	BYTE_TEXT, /* any other visible one, and obs-text */
	BYTE_KIND_COUNT,
};

/* One more than the state, so that no entry is no move. */
#define GO(state)    ((state) + 1)
#define TOKEN(state) [BYTE_HEX] = GO(state), [BYTE_TCHAR] = GO(state)
#define VISIBLE(state)                                                                                                         \
	TOKEN(state), [BYTE_COLON] = GO(state), [BYTE_SEMICOLON] = GO(state), [BYTE_EQUALS] = GO(state), [BYTE_TEXT] = GO(state)

static const uint8_t moves[CHUNK_STATE_COUNT][BYTE_KIND_COUNT] = {
	[CHUNK_SIZE_FIRST] = { [BYTE_HEX] = GO(CHUNK_SIZE) },
	[CHUNK_SIZE] = { [BYTE_HEX] = GO(CHUNK_SIZE),
	    [BYTE_BLANK] = GO(CHUNK_EXT_BLANK),
	    [BYTE_SEMICOLON] = GO(CHUNK_EXT_NAME_FIRST),
	    [BYTE_CR] = GO(CHUNK_SIZE_LF) },
	[CHUNK_EXT_BLANK] = { [BYTE_BLANK] = GO(CHUNK_EXT_BLANK), [BYTE_SEMICOLON] = GO(CHUNK_EXT_NAME_FIRST) },
	[CHUNK_EXT_NAME_FIRST] = { [BYTE_BLANK] = GO(CHUNK_EXT_NAME_FIRST), TOKEN(CHUNK_EXT_NAME) },
	[CHUNK_EXT_NAME] = { TOKEN(CHUNK_EXT_NAME), [BYTE_BLANK] = GO(CHUNK_EXT_NAME_BLANK),
	    [BYTE_EQUALS] = GO(CHUNK_EXT_VALUE_FIRST), [BYTE_SEMICOLON] = GO(CHUNK_EXT_NAME_FIRST),
	    [BYTE_CR] = GO(CHUNK_SIZE_LF) },
	[CHUNK_EXT_NAME_BLANK] = { [BYTE_BLANK] = GO(CHUNK_EXT_NAME_BLANK),
	    [BYTE_EQUALS] = GO(CHUNK_EXT_VALUE_FIRST),
	    [BYTE_SEMICOLON] = GO(CHUNK_EXT_NAME_FIRST) },
	[CHUNK_EXT_VALUE_FIRST] = { [BYTE_BLANK] = GO(CHUNK_EXT_VALUE_FIRST),
	    TOKEN(CHUNK_EXT_VALUE),
	    [BYTE_QUOTE] = GO(CHUNK_EXT_QUOTED) },
	[CHUNK_EXT_VALUE] = { TOKEN(CHUNK_EXT_VALUE), [BYTE_BLANK] = GO(CHUNK_EXT_BLANK),
	    [BYTE_SEMICOLON] = GO(CHUNK_EXT_NAME_FIRST), [BYTE_CR] = GO(CHUNK_SIZE_LF) },
	[CHUNK_EXT_QUOTED] = { VISIBLE(CHUNK_EXT_QUOTED), [BYTE_BLANK] = GO(CHUNK_EXT_QUOTED),
	    [BYTE_BACKSLASH] = GO(CHUNK_EXT_ESCAPE), [BYTE_QUOTE] = GO(CHUNK_EXT_QUOTED_END) },
	[CHUNK_EXT_ESCAPE] = { VISIBLE(CHUNK_EXT_QUOTED), [BYTE_BLANK] = GO(CHUNK_EXT_QUOTED),
	    [BYTE_BACKSLASH] = GO(CHUNK_EXT_QUOTED), [BYTE_QUOTE] = GO(CHUNK_EXT_QUOTED) },
	[CHUNK_EXT_QUOTED_END] = { [BYTE_BLANK] = GO(CHUNK_EXT_BLANK),
	    [BYTE_SEMICOLON] = GO(CHUNK_EXT_NAME_FIRST),
	    [BYTE_CR] = GO(CHUNK_SIZE_LF) },
	[CHUNK_SIZE_LF] = { [BYTE_LF] = GO(CHUNK_DATA) },
	[CHUNK_DATA] = { 0 }, /* not read byte by byte */
	[CHUNK_DATA_CR] = { [BYTE_CR] = GO(CHUNK_DATA_LF) },
	[CHUNK_DATA_LF] = { [BYTE_LF] = GO(CHUNK_SIZE_FIRST) },
	[CHUNK_LINE_FIRST] = { TOKEN(CHUNK_TRAILER_NAME), [BYTE_CR] = GO(CHUNK_END_LF) },
	[CHUNK_TRAILER_NAME] = { TOKEN(CHUNK_TRAILER_NAME), [BYTE_COLON] = GO(CHUNK_TRAILER_VALUE) },
	[CHUNK_TRAILER_VALUE] = { VISIBLE(CHUNK_TRAILER_VALUE), [BYTE_BLANK] = GO(CHUNK_TRAILER_VALUE),
	    [BYTE_QUOTE] = GO(CHUNK_TRAILER_VALUE), [BYTE_BACKSLASH] = GO(CHUNK_TRAILER_VALUE),
	    [BYTE_CR] = GO(CHUNK_TRAILER_LF) },
	[CHUNK_TRAILER_LF] = { [BYTE_LF] = GO(CHUNK_LINE_FIRST) },
	[CHUNK_END_LF] = { [BYTE_LF] = GO(CHUNK_END) },
	[CHUNK_END] = { 0 },
	[CHUNK_BAD] = { 0 },
};

static bool is_trailer(enum chunk_state state)
{
	return state >= CHUNK_LINE_FIRST && state <= CHUNK_END_LF;
}

static bool is_extension(enum chunk_state state)
{
	return state >= CHUNK_EXT_BLANK && state <= CHUNK_EXT_QUOTED_END;
}

static enum byte_kind kind_of(unsigned char c)
{
	switch (c) {
	case '\r':
		return BYTE_CR;
	case '\n':
		return BYTE_LF;
	case ' ':
	case '\t':
		return BYTE_BLANK;
	case ':':
		return BYTE_COLON;
	case ';':
		return BYTE_SEMICOLON;
	case '=':
		return BYTE_EQUALS;
	case '"':
		return BYTE_QUOTE;
	case '\\':
		return BYTE_BACKSLASH;
	case '0' ... '9':
	case 'a' ... 'f':
	case 'A' ... 'F':
		return BYTE_HEX;
	default:
		if (c < 0x20 || c == 0x7f)
			return BYTE_CONTROL;
		return slice_is_token((struct slice){ (const char *)&c, 1 }) ? BYTE_TCHAR : BYTE_TEXT;
	}
}

/* A hex digit. Leading zeros count, or they would be a way to send bytes without end. */
static enum http1_result add_digit(struct chunked *c, unsigned char digit)
{
	unsigned value = digit <= '9' ? digit - (unsigned)'0' : (digit | 0x20u) - 'a' + 10;

	if (++c->digits > CHUNKED_DIGITS_MAX || c->size > (uint64_t)INT64_MAX >> 4)
		return HTTP1_CHUNK_TOO_LARGE;
	c->size = c->size << 4 | value;
	return HTTP1_MORE;
}

static enum http1_result count_extension(struct chunked *c)
{
	if (++c->extension_bytes > CHUNKED_EXTENSION_MAX || ++c->extensions_total > CHUNKED_EXTENSIONS_MAX)
		return HTTP1_CHUNK_EXTENSION_TOO_LONG;
	return HTTP1_MORE;
}

static enum http1_result count_trailer(struct chunked *c, enum chunk_state from)
{
	if (from == CHUNK_LINE_FIRST && c->state == CHUNK_TRAILER_NAME && ++c->trailer_fields > CHUNKED_TRAILER_FIELDS_MAX)
		return HTTP1_BAD_TRAILER;
	return ++c->line_bytes > CHUNKED_TRAILER_MAX ? HTTP1_BAD_TRAILER : HTTP1_MORE;
}

/* The size line's end: content, or behind the last chunk the trailer section. */
static void begin_chunk(struct chunked *c)
{
	c->left = c->size;
	if (c->size == 0)
		c->state = CHUNK_LINE_FIRST;
	c->size = 0;
	c->digits = 0;
	c->extension_bytes = 0;
}

/* One byte of framing: the only writer of c->state but for the end of content and for errors. */
static enum http1_result step(struct chunked *c, unsigned char byte)
{
	enum chunk_state from = c->state;
	unsigned next = moves[from][kind_of(byte)];

	if (next == 0)
		return is_trailer(from) ? HTTP1_BAD_TRAILER : HTTP1_BAD_CHUNK;
	c->state = (uint8_t)(next - 1);
	if (c->state == CHUNK_SIZE)
		return add_digit(c, byte);
	if (is_extension(c->state))
		return count_extension(c);
	if (is_trailer(from))
		return c->state == CHUNK_END ? HTTP1_OK : count_trailer(c, from);
	if (c->state == CHUNK_DATA)
		begin_chunk(c);
	return HTTP1_MORE;
}

void chunked_skip(struct chunked *c, uint64_t n)
{
	assert(n <= c->left);
	c->left -= n;
	if (n && c->left == 0)
		c->state = CHUNK_DATA_CR;
}

static struct slice take(struct slice *in, size_t n)
{
	struct slice taken = { in->ptr, n };

	*in = (struct slice){ in->ptr + n, in->len - n };
	return taken;
}

enum http1_result chunked_decode(struct chunked *c, struct slice *in, struct slice *ret_data)
{
	enum http1_result result = HTTP1_MORE;

	*ret_data = SLICE("");
	if (c->state == CHUNK_END || c->state == CHUNK_BAD)
		return c->state == CHUNK_END ? HTTP1_OK : HTTP1_BAD_CHUNK;
	while (result == HTTP1_MORE && in->len) {
		if (c->state == CHUNK_DATA) {
			*ret_data = take(in, MIN(c->left, in->len));
			chunked_skip(c, ret_data->len);
			return HTTP1_MORE;
		}
		result = step(c, (unsigned char)*take(in, 1).ptr);
	}
	if (result != HTTP1_MORE && result != HTTP1_OK)
		c->state = CHUNK_BAD;
	return result;
}
