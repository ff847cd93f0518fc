/* SPDX-License-Identifier: MIT
 *
 * layout.h -- what the inline functions know of the inside of the library, as numbers. They were compiled into an extension, and
 * the library that it meets may be another one: both have this list, and pyruntime_import compares them item by item, as far as
 * the shorter one goes. So items are only ever appended; one that has to change is a break, and raises PYRT_ABI_MAJOR.
 */
#ifndef PYRUNTIME_LAYOUT_H
#define PYRUNTIME_LAYOUT_H

#include "capi_table.h"
#include "pyruntime.h"

#define PYRT_LAYOUT_FIELD(type, field) {#type "." #field, offsetof(type, field)}
#define PYRT_LAYOUT_SIZE(type) {"sizeof " #type, sizeof(type)}
#define PYRT_LAYOUT_NUMBER(number) {#number, (uint64_t)(number)}

/* The initialiser of an array of pyrt_layout_item, an item a line. */
/* clang-format off */
#define PYRT_LAYOUT_ITEMS \
    PYRT_LAYOUT_FIELD(pyrt_tls_block, current), \
    PYRT_LAYOUT_FIELD(pyrt_tls_block, self_id), \
    PYRT_LAYOUT_FIELD(pyrt_tls_block, os_id), \
    PYRT_LAYOUT_FIELD(pyrt_tls_block, reader_row), \
    PYRT_LAYOUT_FIELD(pyrt_tls_block, identity), \
    PYRT_LAYOUT_FIELD(pyrt_qsbr_slot, word), \
    PYRT_LAYOUT_FIELD(pyrt_qsbr_slot, sequence), \
    PYRT_LAYOUT_FIELD(pyrt_qsbr_slot, flags), \
    PYRT_LAYOUT_FIELD(pyrt_qsbr_slot, read_depth), \
    PYRT_LAYOUT_FIELD(pyrt_thread, slot), \
    PYRT_LAYOUT_FIELD(pyrt_thread, os_id), \
    PYRT_LAYOUT_FIELD(pyrt_thread, id), \
    PYRT_LAYOUT_FIELD(pyrt_thread, interp), \
    PYRT_LAYOUT_FIELD(pyrt_thread, index), \
    PYRT_LAYOUT_FIELD(pyrt_thread, retire), \
    PYRT_LAYOUT_FIELD(pyrt_thread, critical_sections), \
    PYRT_LAYOUT_FIELD(pyrt_thread, heaps), \
    PYRT_LAYOUT_FIELD(pyrt_thread, self_id), \
    PYRT_LAYOUT_FIELD(pyrt_thread, unique_counts), \
    PYRT_LAYOUT_FIELD(pyrt_retire_window, cursor), \
    PYRT_LAYOUT_FIELD(pyrt_retire_window, slow_at), \
    PYRT_LAYOUT_FIELD(pyrt_retire_window, bytes_left), \
    PYRT_LAYOUT_FIELD(pyrt_retired, p), \
    PYRT_LAYOUT_FIELD(pyrt_retired, dispose), \
    PYRT_LAYOUT_SIZE(pyrt_retired), \
    PYRT_LAYOUT_FIELD(pyrt_unique_counts, values), \
    PYRT_LAYOUT_FIELD(pyrt_unique_counts, size), \
    PYRT_LAYOUT_FIELD(pyrt_heap_table, parts), \
    PYRT_LAYOUT_FIELD(pyrt_heap_table, count), \
    PYRT_LAYOUT_FIELD(pyrt_heap_part, heap), \
    PYRT_LAYOUT_FIELD(pyrt_heap_part, direct), \
    PYRT_LAYOUT_FIELD(pyrt_heap, index), \
    PYRT_LAYOUT_FIELD(pyrt_page_head, free), \
    PYRT_LAYOUT_FIELD(pyrt_page_head, until_slow), \
    PYRT_LAYOUT_FIELD(pyrt_page_head, key), \
    PYRT_LAYOUT_FIELD(pyrt_page_head, link), \
    PYRT_LAYOUT_NUMBER(PYRT_HEAP_SEGMENT), \
    PYRT_LAYOUT_NUMBER(PYRT_HEAP_SMALL_MAX), \
    PYRT_LAYOUT_FIELD(pyrt_object, owner), \
    PYRT_LAYOUT_FIELD(pyrt_object, flags), \
    PYRT_LAYOUT_FIELD(pyrt_object, mutex), \
    PYRT_LAYOUT_FIELD(pyrt_object, local), \
    PYRT_LAYOUT_FIELD(pyrt_object, shared), \
    PYRT_LAYOUT_FIELD(pyrt_object, type), \
    PYRT_LAYOUT_SIZE(pyrt_object), \
    PYRT_LAYOUT_FIELD(pyrt_weakref, referent), \
    PYRT_LAYOUT_FIELD(pyrt_weakref, interp), \
    PYRT_LAYOUT_SIZE(pyrt_mutex), \
    PYRT_LAYOUT_NUMBER(PYRT_PARKING_CELLS), \
    PYRT_LAYOUT_SIZE(pyrt_event), \
    PYRT_LAYOUT_SIZE(pyrt_once), \
    PYRT_LAYOUT_SIZE(pyrt_recursive_mutex), \
    PYRT_LAYOUT_SIZE(pyrt_rwlock), \
    PYRT_LAYOUT_NUMBER(PYRT_READER_SLOTS), \
    PYRT_LAYOUT_SIZE(pyrt_seqlock), \
    PYRT_LAYOUT_SIZE(pyrt_condition), \
    PYRT_LAYOUT_SIZE(pyrt_critical_section), \
    PYRT_LAYOUT_SIZE(pyrt_critical_section2), \
    PYRT_LAYOUT_FIELD(pyrt_striped_lock, mutexes), \
    PYRT_LAYOUT_FIELD(pyrt_striped_lock, mask), \
    PYRT_LAYOUT_FIELD(pyrt_striped_lock, hash_shift), \
    PYRT_LAYOUT_FIELD(pyrt_striped_lock, mutex_shift), \
    PYRT_LAYOUT_SIZE(pyrt_striped_lock)
/* clang-format on */

#endif /* PYRUNTIME_LAYOUT_H */
