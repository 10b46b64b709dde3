/*
 * wire: the frames that a front and a worker exchange on a slot socket: layout, limits, and the one place where they are checked.
 * Never:  touches a socket; trusts a length.
 * Pure:   slices in, structs out.
 *
 * A frame is {u8 type, u8 flags, u16 reserved (0), u32 length, u64 serial}, little-endian, then `length` bytes of payload. The serial is unique per
 * request of a slot and grows; HELLO has 0. All that does not fit what is written here closes the slot socket.
 *
 * front -> worker                                     worker -> front
 *   HELLO    before its first REQUEST                   HELLO    in answer to it, before all else: an idle socket stays silent
 *   REQUEST  variables and body                         HEAD     status and fields; 103 may come before the final one
 *   CANCEL   the client has gone                        DATA     content
 *                                                       FILE     content: a piece of a regular file
 *                                                       END      the response is complete
 *
 * A descriptor rides on the first byte of its frame, at most one; such a frame has WIRE_DESCRIPTOR set. A REQUEST's may ride on the first byte of the
 * HELLO that stands right before it.
 */
#ifndef FOREBAY_UPSTREAM_WORKER_WIRE_H
#define FOREBAY_UPSTREAM_WORKER_WIRE_H

#include "core/buf.h"

#define WIRE_VERSION      1
#define WIRE_MAGIC        0x79616266u /* "fbay" */
#define WIRE_HEADER_BYTES 16

#define WIRE_HELLO_BYTES   16           /* u32 magic, u32 version, u32 longest frame it takes, u32 reserved (0) */
#define WIRE_VARIABLES_MAX (192u << 10) /* bytes, with their lengths */
#define WIRE_INLINE_MAX    (256u << 10) /* bytes of a body inside a REQUEST; a longer one goes as a descriptor */
#define WIRE_REQUEST_MAX   (4 + WIRE_VARIABLES_MAX + WIRE_INLINE_MAX)
#define WIRE_HEAD_MAX      (64u << 10) /* a HEAD's payload */
#define WIRE_FIELDS_MAX    500         /* of a HEAD */
#define WIRE_DATA_MAX      (1u << 20)  /* a DATA's payload */
#define WIRE_FILE_BYTES    16          /* u64 offset, u64 length */
#define WIRE_INTERIM_MAX   8           /* HEADs before the final one */
#define WIRE_FILES_MAX     16 /* FILEs of an answer: each is a descriptor that the front keeps until the client has it */

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_REQUEST, /* u32 bytes of variables, the variables, the body; with WIRE_DESCRIPTOR u64 length of the body in its place */
	WIRE_HEAD, /* u16 status, u16 number of fields, the fields */
	WIRE_DATA,
	WIRE_FILE,
	WIRE_END,
	WIRE_CANCEL,
	WIRE_TYPE_COUNT,
};

enum wire_flag {
	WIRE_DESCRIPTOR = 1, /* REQUEST: the body is a descriptor; FILE: always */
	WIRE_LAST = 2,       /* END: the worker takes no further request on this socket */
};

struct wire_frame {
	uint8_t type, flags;
	uint32_t length; /* bytes of payload */
	uint64_t serial;
};

/* Writes WIRE_HEADER_BYTES. */
void wire_put_header(char *to, const struct wire_frame *f);

/*
 * A header at the start of `in`. 1: *ret is set (in stays where it is); 0: fewer than WIRE_HEADER_BYTES; -EPROTO: an unknown type, a flag that the
 * type does not have, reserved bits, a length outside the type's limits.
 */
MUST_USE int wire_get_header(struct slice in, struct wire_frame *ret);

/* Names and values: u32 name length, u32 value length, name, value. */
void wire_put_pair(struct buf *out, struct slice name, struct slice value);

/* 1: one was cut from *in; 0: *in is empty; -EPROTO: it ends inside a pair, or a name is empty. */
MUST_USE int wire_get_pair(struct slice *in, struct slice *ret_name, struct slice *ret_value);

/* A whole HELLO frame. */
void wire_put_hello(struct buf *out);

/* 0, or -EPROTO: another magic or version, or a peer that cannot take what this version sends. */
MUST_USE int wire_check_hello(struct slice payload);

struct wire_request {
	struct slice variables; /* pairs, all well formed */
	size_t variable_count;
	struct slice body; /* inline; empty with a descriptor */
	uint64_t length;   /* of the body, wherever it is */
};

/* The payload of a REQUEST. 0 or -EPROTO. */
MUST_USE int wire_get_request(const struct wire_frame *f, struct slice payload, struct wire_request *ret);

struct wire_head {
	unsigned status;
	unsigned field_count;
	struct slice
	    fields;      /* pairs, all well formed, names and values valid (core/fields.h), none that belongs to a connection */
	bool has_length; /* one Content-Length, a number */
	uint64_t length;
};

/* The payload of a HEAD. Status 103 or 200 to 599, no field of a connection. 0, or -EPROTO with *ret_why a literal. */
MUST_USE int wire_get_head(struct slice payload, struct wire_head *ret, const char **ret_why);

struct wire_file {
	uint64_t offset, length;
};

/* The payload of a FILE. -EPROTO: empty, or its end is beyond 2^63 - 1. */
MUST_USE int wire_get_file(struct slice payload, struct wire_file *ret);
void wire_put_file(char *to, const struct wire_file *file); /* WIRE_FILE_BYTES */

/* Little-endian integers. */
void wire_put_u16(char *to, uint16_t n);
void wire_put_u32(char *to, uint32_t n);
void wire_put_u64(char *to, uint64_t n);
uint16_t wire_get_u16(const char *from);
uint32_t wire_get_u32(const char *from);
uint64_t wire_get_u64(const char *from);

#endif
