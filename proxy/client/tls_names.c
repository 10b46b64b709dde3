#include "proxy/client/tls_names.h"

#include <openssl/asn1.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

/* Lower case, without the dot of the root, NUL-terminated. False: not a host name. */
static bool normal(struct slice text, char ret[static TLS_NAME_MAX + 1], size_t *ret_len)
{
	if (text.len > 0 && text.ptr[text.len - 1] == '.')
		text.len--;
	if (text.len == 0 || text.len > TLS_NAME_MAX)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];

		ret[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
		if (!is_name_char(ret[i]))
			return false;
	}
	ret[text.len] = '\0';
	*ret_len = text.len;
	return true;
}

int tls_names_add_text(struct tls_names *n, struct slice text, size_t of)
{
	bool wild = slice_starts(text, SLICE("*."));
	char name[TLS_NAME_MAX + 3] = "*.";
	size_t len;

	if (wild)
		text = slice_of(text.ptr + 2, text.len - 2);
	if (!normal(text, name + 2, &len))
		return 0;
	if (n->count == n->size) {
		size_t size = n->size ? n->size * 2 : 8;
		struct tls_name *more = reallocarray(n->all, size, sizeof(*more));

		if (!more)
			return -ENOMEM;
		n->all = more;
		n->size = size;
	}
	n->all[n->count] = (struct tls_name){ .text = slice_dup(slice_str(wild ? name : name + 2)), .of = of };
	return n->all[n->count].text ? (n->count++, 0) : -ENOMEM;
}

static int add_asn1(struct tls_names *n, const ASN1_STRING *s, size_t of)
{
	return tls_names_add_text(n, slice_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)), of);
}

static int add_common_name(struct tls_names *n, const X509 *x, size_t of)
{
	const X509_NAME *subject = X509_get_subject_name(x);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	return at < 0 ? 0 : add_asn1(n, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), of);
}

int tls_names_add(struct tls_names *n, const X509 *x, size_t of)
{
	GENERAL_NAMES *list = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	int err = 0;

	if (!list)
		return add_common_name(n, x, of);
	for (int i = 0; i < sk_GENERAL_NAME_num(list) && !err; i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(list, i);

		if (g->type == GEN_DNS)
			err = add_asn1(n, g->d.dNSName, of);
	}
	GENERAL_NAMES_free(list);
	return err;
}

static int by_text(const void *a, const void *b)
{
	const struct tls_name *x = a, *y = b;
	int order = strcmp(x->text, y->text);

	if (order != 0)
		return order;
	return x->of < y->of ? -1 : x->of > y->of;
}

void tls_names_sort(struct tls_names *n)
{
	if (n->count > 0)
		qsort(n->all, n->count, sizeof(*n->all), by_text);
}

void tls_names_done(struct tls_names *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->all[i].text);
	free(n->all);
	*n = (struct tls_names){ 0 };
}

/* The first of this text. */
static const struct tls_name *find_text(const struct tls_names *n, const char *text)
{
	size_t low = 0, high = n->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(n->all[middle].text, text) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n->count && strcmp(n->all[low].text, text) == 0 ? &n->all[low] : NULL;
}

const struct tls_name *tls_names_find(const struct tls_names *n, struct slice text)
{
	char name[TLS_NAME_MAX + 1];
	const struct tls_name *found;
	char *dot;
	size_t len;

	if (!normal(text, name, &len))
		return NULL;
	found = find_text(n, name);
	dot = strchr(name, '.');
	/* A star stands for one label, which is not empty (RFC 6125, 6.4.3). */
	if (found || !dot || dot == name)
		return found;
	dot[-1] = '*';
	return find_text(n, dot - 1);
}
