#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "core/pieces.h"

static void what_is_given_back_is_taken_again(void **state UNUSED)
{
	struct pieces p;
	char *first, *second;

	pieces_init(&p, 1u << 20);
	first = pieces_take(&p, 65);
	second = pieces_take(&p, 65);
	assert_non_null(first);
	assert_non_null(second);
	memset(first, 1, 65);
	pieces_give(&p, first, 65);
	assert_int_equal(p.bytes, PIECES_ARE_KEPT ? 72 : 0);
	if (PIECES_ARE_KEPT) {
		assert_ptr_equal(pieces_take(&p, 72), first); /* of the same size, rounded */
		assert_int_equal(p.bytes, 0);
		pieces_give(&p, first, 72);
	}
	pieces_give(&p, second, 65);
	pieces_done(&p);
	assert_int_equal(p.bytes, 0);
}

/* Each size has its own, and a piece is as large as was asked for, whoever had it before. */
static void sizes_are_apart(void **state UNUSED)
{
	struct pieces p;

	pieces_init(&p, 16u << 20);
	for (unsigned turn = 0; turn < 2; turn++)
		for (size_t size = 1; size <= 2 * PIECES_LARGEST; size++) {
			char *piece = pieces_take(&p, size);

			assert_non_null(piece);
			memset(piece, 0xa5, size);
			pieces_give(&p, piece, size);
		}
	assert_int_equal(p.bytes, PIECES_ARE_KEPT ? PIECES_SIZES * (PIECES_FIRST + PIECES_LARGEST) / 2 : 0);
	pieces_done(&p);
}

static void so_much_is_kept_and_no_more(void **state UNUSED)
{
	struct pieces p;
	void *all[8];

	pieces_init(&p, 4 * 264);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		all[i] = pieces_take(&p, 264);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		pieces_give(&p, all[i], 264);
	assert_int_equal(p.bytes, PIECES_ARE_KEPT ? 4 * 264 : 0);
	pieces_done(&p);
}

/* What is in use between two looks stays; of the rest, half goes each time. */
static void what_is_of_no_use_goes(void **state UNUSED)
{
	struct pieces p;
	void *all[8];

	pieces_init(&p, 1u << 20);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		all[i] = pieces_take(&p, 56);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		pieces_give(&p, all[i], 56);
	pieces_trim(&p); /* all were taken since the beginning */
	assert_int_equal(p.bytes, PIECES_ARE_KEPT ? 8 * 56 : 0);
	pieces_trim(&p);
	assert_int_equal(p.bytes, PIECES_ARE_KEPT ? 4 * 56 : 0);
	for (unsigned i = 0; i < 4; i++)
		all[i] = pieces_take(&p, 56);
	for (unsigned i = 0; i < 4; i++)
		pieces_give(&p, all[i], 56);
	pieces_trim(&p);
	assert_int_equal(p.bytes, PIECES_ARE_KEPT ? 4 * 56 : 0);
	for (unsigned i = 0; i < 3; i++)
		pieces_trim(&p);
	assert_int_equal(p.bytes, 0);
	pieces_done(&p);
}

/* Pieces go to the sizes that they are large enough for, whatever malloc() rounds to. */
static void what_malloc_knows_the_size_of(void **state UNUSED)
{
	static struct pieces p;

	pieces_init(&p, 16u << 20);
	for (size_t size = 1; size <= 2 * PIECES_LARGEST; size++) {
		char *given = size % 2 ? malloc(size) : pieces_take(&p, size), *taken;
		bool comes_again = PIECES_ARE_KEPT && size <= PIECES_LARGEST;

		assert_non_null(given);
		comes_again = comes_again && malloc_usable_size(given) == pieces_size(pieces_which(size));
		memset(given, 0xa5, size);
		pieces_give_back(&p, given);
		taken = pieces_take(&p, size);
		assert_non_null(taken);
		if (comes_again)
			assert_ptr_equal(taken, given);
		memset(taken, 0xa5, size);
		pieces_give_back(&p, taken);
	}
	pieces_done(&p);
	assert_int_equal(p.bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_given_back_is_taken_again),
		cmocka_unit_test(sizes_are_apart),
		cmocka_unit_test(so_much_is_kept_and_no_more),
		cmocka_unit_test(what_is_of_no_use_goes),
		cmocka_unit_test(what_malloc_knows_the_size_of),
	};

	return cmocka_run_group_tests_name("pieces", tests, NULL, NULL);
}
