/* part.c -- finding a page with a free block, and letting empty ones go; see part.h for the invariant. */
#include "memory/heap_impl.h"
#include "memory/watched_page.h"

#include "platform/futex.h"
#include "platform/report.h"
#include "state/thread_impl.h"

/* So many full pages are looked at before a new page is taken: for blocks that others have freed, of which the owner is never
 * told, and for the few that it has freed itself. It goes round. */
enum { LOOKS_AT_FULL = 8 };

/* A full page becomes usable when its owner has freed more than one block in so many: fewer are not worth the way from list to
 * list and back. Who finds no usable page takes them all the same, from the full ones that he looks at. */
enum { WORTH_TAKING = 16 };

pyrt_page pyrt_empty_page;

#define COUNT(share, name, n) pyrt_store_relaxed(&(share)->name, pyrt_load_relaxed(&(share)->name) + (uint64_t)(n))

/* ---- waiting for readers ----------------------------------------------------------------------------------------- */

static void
hold(pyrt_part *part, const pyrt_page *page)
{
    part->waiting++;
    COUNT(part->share, held_bytes, page->bytes);
    pyrt_share_note_held(part->share);
}

static void
hold_no_more(pyrt_part *part, const pyrt_page *page)
{
    if (page->goal != 0) {
        part->waiting--;
        COUNT(part->share, held_bytes, -page->bytes);
        pyrt_share_note_held(part->share);
    }
}

/* A page that goes, or is in use again: readers may have seen its blocks since, and it gets a goal when it is empty again. */
static void
forget_goal(pyrt_part *part, pyrt_page *page)
{
    hold_no_more(part, page);
    page->goal = 0;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* The usable pages of a class have changed. Of those in the middle nothing has. A heap may have ended, and a type-stable one
 * counts its empty pages: there the long way is taken also for the only page. */
static void
usable_changed(pyrt_part *part, unsigned class)
{
    const pyrt_page_list *usable = &part->usable[class];
    pyrt_page_head *page = &pyrt_empty_page.head;
    if (usable->first != NULL) {
        bool stays = usable->first == usable->last && part->heap == NULL;
        page = &usable->first->head;
        int32_t slow_below = stays ? PYRT_SLOW_NEVER : PYRT_SLOW_WHEN_EMPTY;
        pyrt_page_set_slow_below(usable->first, slow_below);
        pyrt_page_set_slow_below(usable->last, slow_below);
    }
    if (class > PYRT_CLASS_SMALL_MAX || part->base.direct[pyrt_class_size(class) / 8] == page) {
        return;
    }
    size_t from = class <= part->smallest ? 0 : pyrt_class_size(class - 1) / 8 + 1;
    for (size_t i = from; i <= pyrt_class_size(class) / 8; i++) {
        part->base.direct[i] = page;
    }
}

void
pyrt_part_init(pyrt_part *part)
{
    part->smallest = (uint8_t)pyrt_class_of(part->link + sizeof(void *));
    for (size_t i = 0; i < PYRT_HEAP_DIRECT; i++) {
        part->base.direct[i] = &pyrt_empty_page.head;
    }
}

static void
become_usable(pyrt_part *part, pyrt_page *page)
{
    page->head.flags &= (uint8_t)~PYRT_PAGE_FULL;
    pyrt_page_list_push_back(&part->usable[page->head.class_], page);
    usable_changed(part, page->head.class_);
}

/* Into the list of the full ones, until there is something to take from it again. */
static void
put_away(pyrt_part *part, pyrt_page *page)
{
    page->head.flags |= PYRT_PAGE_FULL;
    pyrt_page_set_slow_below(page, (int32_t)pyrt_page_used(page) - page->head.capacity / WORTH_TAKING);
    pyrt_page_list_push_back(&part->full[page->head.class_], page);
}

static void
become_full(pyrt_part *part, pyrt_page *page)
{
    forget_goal(part, page);
    pyrt_page_list_remove(&part->usable[page->head.class_], page);
    put_away(part, page);
    usable_changed(part, page->head.class_);
}

/* ---- letting go -------------------------------------------------------------------------------------------------- */

static void
let_go(pyrt_part *part, pyrt_page *page)
{
    forget_goal(part, page);
    COUNT(part->share, pages, -1);
    COUNT(part->share, page_bytes, -page->bytes);
    if (page->heap != NULL) {
        pyrt_heap_unref(page->heap);
    }
    pyrt_page_list_remove(
        page->head.flags & PYRT_PAGE_FULL ? &part->full[page->head.class_] : &part->usable[page->head.class_], page);
    usable_changed(part, page->head.class_);
    page->part = NULL;
    pyrt_slices_give(part->share, page);
}

/* Of a type-stable heap a page stays until the readers of this moment have passed; blocks may be taken from it meanwhile,
 * and the last free after that sets a later goal. */
static void
become_empty(pyrt_part *part, pyrt_page *page)
{
    if (part->interp == NULL) {
        let_go(part, page);
        return;
    }
    if (page->goal == 0) {
        hold(part, page);
    }
    page->goal = pyrt_qsbr_advance(part->interp);
    if (part->waiting == 1) {
        part->soonest = page->goal;
    }
}

static bool
is_ended(const pyrt_part *part)
{
    return part->heap != NULL && pyrt_load_acquire(&part->heap->state) != PYRT_HEAP_LIVE;
}

/* That one stays when it is empty: the next block is wanted soon. */
static bool
is_only_usable(const pyrt_part *part, const pyrt_page *page)
{
    return part->usable[page->head.class_].first == page && part->usable[page->head.class_].last == page;
}

void
pyrt_part_freed(pyrt_page *page)
{
    pyrt_part *part = page->part;
    if (page->head.flags & PYRT_PAGE_FULL) {
        pyrt_page_list_remove(&part->full[page->head.class_], page);
        become_usable(part, page);
    }
    if (pyrt_page_used(page) != 0) {
        return;
    }
    if (!is_only_usable(part, page) || page->head.class_ == PYRT_CLASS_LARGE || is_ended(part)) {
        become_empty(part, page);
    }
    else {
        forget_goal(part, page);
    }
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static pyrt_page *
find_usable(pyrt_part *part, unsigned class)
{
    pyrt_page *page = part->usable[class].first;
    while (page != NULL) {
        if (pyrt_page_collect(page) || pyrt_page_carve(page)) {
            return page;
        }
        become_full(part, page);
        page = part->usable[class].first;
    }
    return NULL;
}

/* Goes round the full pages, a few at a time. */
static pyrt_page *
look_at_full(pyrt_part *part, unsigned class)
{
    pyrt_page_list *full = &part->full[class];
    pyrt_page *found = NULL;
    pyrt_page *page = full->first;
    for (int i = 0; i < LOOKS_AT_FULL && page != NULL && found == NULL; i++) {
        pyrt_page_list_remove(full, page);
        if (pyrt_page_collect(page)) {
            become_usable(part, page);
            found = page;
        }
        else {
            pyrt_page_list_push_back(full, page);
        }
        page = full->first;
    }
    return found;
}

static void
own(pyrt_part *part, pyrt_page *page)
{
    page->part = part;
    COUNT(part->share, pages, 1);
    COUNT(part->share, page_bytes, page->bytes);
    if (page->heap != NULL) {
        pyrt_heap_ref(page->heap);
    }
}

/* Blocks that others have freed are found when their size is wanted. So that what has become empty of other sizes is not lost,
 * every page is looked at before the share grows, by what is new or what is taken over; not each time, but when it has grown by a
 * quarter. */
static void
sweep_if_grown(pyrt_part *part)
{
    if (part->heap != NULL) {
        pyrt_heap_sweep_if_grown();
    }
    else if (part->share->segments >= part->share->sweep_at) {
        pyrt_part_trim(part);
        part->share->sweep_at = pyrt_share_next_sweep(part->share);
    }
}

static pyrt_page *
take_slices(pyrt_part *part, size_t slices, bool *zero)
{
    if (!pyrt_share_has_room(part->share, slices)) {
        sweep_if_grown(part);
    }
    return pyrt_slices_take(part->share, slices, zero);
}

static pyrt_page *
fresh_page(pyrt_part *part, unsigned class)
{
    bool zero;
    pyrt_page *page = take_slices(part, pyrt_class_slices(class), &zero);
    if (page == NULL) {
        return NULL;
    }
    pyrt_page_init(page, class, part, zero);
    pyrt_page_watch(page);
    own(part, page);
    pyrt_page_carve(page);
    pyrt_page_list_push_front(&part->usable[class], page);
    usable_changed(part, class);
    return page;
}

void
pyrt_part_adopt_all(pyrt_part *part, const pyrt_segment *segment)
{
    COUNT(part->share, adopted, 1);
    if (part->heap != NULL) {
        pyrt_heap_adopt(segment);
        return;
    }
    pyrt_held_reports held;
    pyrt_report_hold(&held);
    for (uint64_t left = segment->first; left != 0; left &= left - 1) {
        pyrt_part_adopt(part, &segment->pages[__builtin_ctzll(left)]);
    }
    sweep_if_grown(part);
    pyrt_report_tell(&held);
}

/* What ended threads have left is used up before the share grows. */
static bool
adopt_for(pyrt_part *part, unsigned class, size_t slices)
{
    pyrt_segment *segment = pyrt_segment_adopt(part, class, slices);
    if (segment != NULL) {
        pyrt_part_adopt_all(part, segment);
    }
    return segment != NULL;
}

/* Before more is asked of the system. */
static void
give_back(pyrt_part *part)
{
    if (part->heap != NULL) {
        pyrt_heap_release(part);
    }
    pyrt_share_purge_if_due(part->share);
}

static pyrt_page *
find_page(pyrt_part *part, unsigned class)
{
    pyrt_page *page = find_usable(part, class);
    page = page != NULL ? page : look_at_full(part, class);
    if (page == NULL && adopt_for(part, class, pyrt_class_slices(class))) {
        page = find_usable(part, class);
    }
    if (page == NULL) {
        give_back(part);
        page = fresh_page(part, class);
    }
    return page;
}

static void *
alloc_classed(pyrt_part *part, size_t size, bool *zero)
{
    pyrt_page *page = find_page(part, pyrt_part_class(part, size));
    if (page == NULL) {
        return NULL;
    }
    if (pyrt_page_is_watched(page)) {
        return pyrt_watched_take(page);
    }
    *zero = (page->head.flags & PYRT_PAGE_FRESH) != 0;
    return pyrt_page_take(page);
}

/* A hook that is told of damage may allocate here, too: it is told when everything is in its list again. */
void *
pyrt_part_alloc(pyrt_part *part, size_t size, bool *zero)
{
    pyrt_held_reports held;
    *zero = false;
    if (size > PYRT_CLASSED_MAX) {
        return pyrt_part_alloc_large(part, size, 1, zero);
    }
    pyrt_report_hold(&held);
    void *block = alloc_classed(part, size, zero);
    pyrt_report_tell(&held);
    return block;
}

static void *
alloc_large(pyrt_part *part, size_t size, size_t align, bool *zero)
{
    *zero = true;
    if (size > PYRT_LARGE_MAX || align > PYRT_SLICE) {
        give_back(part);
        pyrt_page *huge = pyrt_huge_new(part, size, align);
        return huge != NULL ? huge->head.start : NULL;
    }
    /* What others have freed of these goes back first. */
    pyrt_page *freed = look_at_full(part, PYRT_CLASS_LARGE);
    if (freed != NULL) {
        become_empty(part, freed);
    }
    give_back(part);
    size_t slices = (size + PYRT_SLICE - 1) >> PYRT_SLICE_SHIFT;
    if (!pyrt_share_has_room(part->share, slices)) {
        /* A page of this class has something to take when it goes. */
        (void)adopt_for(part, PYRT_CLASS_LARGE, slices);
    }
    pyrt_page *page = take_slices(part, slices, zero);
    if (page == NULL) {
        return NULL;
    }
    pyrt_page_init(page, PYRT_CLASS_LARGE, part, *zero);
    pyrt_page_watch(page);
    own(part, page);
    void *block = page->head.start;
    if (pyrt_page_is_watched(page)) {
        *zero = false;
        pyrt_page_carve(page);
        block = pyrt_watched_take(page);
    }
    else {
        page->head.carved = 1;
        pyrt_page_set_used(page, 1);
    }
    put_away(part, page);
    return block;
}

void *
pyrt_part_aligned_alloc(pyrt_part *part, size_t align, size_t size)
{
    bool zero;
    if (align > PYRT_SLICE || size > PYRT_CLASSED_MAX) {
        return pyrt_part_alloc_large(part, size, align, &zero);
    }
    unsigned class = pyrt_part_class(part, size);
    while ((pyrt_class_size(class) & (align - 1)) != 0) {
        class++;
    }
    return pyrt_part_alloc(part, pyrt_class_size(class), &zero);
}

void *
pyrt_part_alloc_large(pyrt_part *part, size_t size, size_t align, bool *zero)
{
    pyrt_held_reports held;
    pyrt_report_hold(&held);
    void *block = alloc_large(part, size, align, zero);
    pyrt_report_tell(&held);
    return block;
}

bool
pyrt_part_is_empty(const pyrt_part *part)
{
    for (unsigned class = 0; class < PYRT_CLASSES; class++) {
        if (part->usable[class].first != NULL || part->full[class].first != NULL) {
            return false;
        }
    }
    return true;
}

/* ---- the end of a thread, and what it leaves --------------------------------------------------------------------- */

/* Whether nobody needs an empty page, or since when to wait for those who may. */
static bool
is_needed_by_nobody(pyrt_part *part, pyrt_page *page)
{
    if (part->interp == NULL) {
        return true;
    }
    if (page->goal == 0) {
        become_empty(part, page);
    }
    return pyrt_qsbr_poll_interp(part->interp, page->goal);
}

/* In the pool a page has a goal if it is empty, and then only. */
static void
abandon_list(pyrt_part *part, pyrt_page_list *list)
{
    while (list->first != NULL) {
        pyrt_page *page = list->first;
        pyrt_page_collect(page);
        if (pyrt_page_used(page) != 0) {
            forget_goal(part, page);
        }
        else if (is_needed_by_nobody(part, page)) {
            let_go(part, page);
            continue;
        }
        hold_no_more(part, page);
        pyrt_page_list_remove(list, page);
        page->part = NULL;
        /* relaxed: another owner comes only after the pool's lock. */
        pyrt_store_relaxed(&page->head.owner, PYRT_NOBODY | (page->head.owner & PYRT_WATCHED));
    }
}

void
pyrt_part_abandon(pyrt_part *part)
{
    for (unsigned class = 0; class < PYRT_CLASSES; class++) {
        abandon_list(part, &part->usable[class]);
        abandon_list(part, &part->full[class]);
        usable_changed(part, class);
    }
}

/* Its blocks are gone. Of a type-stable heap readers may still look at them: the page stays, without a block to take. */
static void
destroy_page(pyrt_part *part, pyrt_page *page)
{
    if (part->interp == NULL) {
        let_go(part, page);
        return;
    }
    if (page->head.flags & PYRT_PAGE_FULL) {
        pyrt_page_list_remove(&part->full[page->head.class_], page);
        become_usable(part, page);
    }
    if (pyrt_page_used(page) != 0) {
        /* A goal that it may have is of an earlier time when it was empty. */
        forget_goal(part, page);
    }
    pyrt_page_lose_blocks(page);
    if (page->goal == 0) {
        become_empty(part, page);
    }
}

void
pyrt_part_destroy(pyrt_part *part)
{
    for (unsigned class = 0; class < PYRT_CLASSES; class++) {
        pyrt_page *next;
        for (pyrt_page *page = part->full[class].first; page != NULL; page = next) {
            next = page->next;
            destroy_page(part, page);
        }
        for (pyrt_page *page = part->usable[class].first; page != NULL; page = next) {
            next = page->next;
            destroy_page(part, page);
        }
    }
}

void
pyrt_part_release(pyrt_part *part)
{
    if (part->waiting == 0 || !pyrt_qsbr_poll_interp(part->interp, part->soonest)) {
        return;
    }
    uint64_t soonest = UINT64_MAX;
    for (unsigned class = 0; class < PYRT_CLASSES; class++) {
        pyrt_page *next;
        for (pyrt_page *page = part->usable[class].first; page != NULL; page = next) {
            next = page->next;
            if (pyrt_page_used(page) != 0) {
                forget_goal(part, page);
            }
            else if (page->goal != 0 && pyrt_qsbr_poll_interp(part->interp, page->goal)) {
                let_go(part, page);
            }
            else if (page->goal != 0) {
                soonest = page->goal < soonest ? page->goal : soonest;
            }
        }
    }
    part->soonest = soonest != UINT64_MAX ? soonest : part->soonest;
}

void
pyrt_part_trim(pyrt_part *part)
{
    for (unsigned class = 0; class < PYRT_CLASSES; class++) {
        pyrt_page_list *lists[] = {&part->full[class], &part->usable[class]};
        for (int i = 0; i < 2; i++) {
            pyrt_page *next;
            for (pyrt_page *page = lists[i]->first; page != NULL; page = next) {
                next = page->next;
                pyrt_page_collect(page);
                if (pyrt_page_used(page) != 0) {
                    continue;
                }
                if (page->head.flags & PYRT_PAGE_FULL) {
                    pyrt_page_list_remove(&part->full[class], page);
                    become_usable(part, page);
                }
                if (page->goal == 0) {
                    become_empty(part, page);
                }
            }
        }
    }
    pyrt_part_release(part);
}

void
pyrt_part_adopt(pyrt_part *part, pyrt_page *page)
{
    page->part = part;
    pyrt_store_relaxed(&page->head.owner, part->share->token | (page->head.owner & PYRT_WATCHED));
    COUNT(part->share, pages, 1);
    COUNT(part->share, page_bytes, page->bytes);
    bool has_blocks = pyrt_page_collect(page) || page->head.carved < page->head.capacity;
    if (pyrt_page_used(page) != 0) {
        page->goal = 0;
    }
    if (page->goal != 0) {
        part->soonest = part->waiting == 0 || page->goal < part->soonest ? page->goal : part->soonest;
        hold(part, page);
    }
    if (has_blocks) {
        become_usable(part, page);
    }
    else {
        put_away(part, page);
    }
    if (pyrt_page_used(page) == 0) {
        become_empty(part, page);
    }
}
