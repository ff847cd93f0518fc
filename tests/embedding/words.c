/* words.c -- where an extension finds the words of its thread, without an interpreter and a library: the table here has nothing but
 * the offset of a block. "forgot" looks before there is a table; "race" uses it again while another thread looks.
 */
#include <pyruntime/capi.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static __thread pyrt_tls_block block;
static pyrt_capi table;

static void *
use_it_again(void *unused)
{
    for (int i = 0; i < 1000; i++) {
        pyrt_capi_use(&table);
    }
    return unused;
}

int
main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "";
    if (strcmp(way, "forgot") == 0) {
        printf("found %p\n", (void *)pyrt_thread_current());
        return 0;
    }
    table.tls_offset = (char *)&block - (char *)__builtin_thread_pointer();
    pyrt_capi_use(&table);
    block.current = (pyrt_thread *)(void *)&table;
    block.self_id = 7;
    block.identity = &block;
    pthread_t other;
    int race = strcmp(way, "race") == 0;
    if (race && pthread_create(&other, NULL, use_it_again, NULL) != 0) {
        return 1;
    }
    int wrong = 0;
    for (int i = 0; i < 1000; i++) {
        __asm__ volatile("" ::: "memory");
        wrong += pyrt_thread_current() != block.current || PYRT_TLS.self_id != 7 || pyrt_tls() != &block ||
                 pyrt_os_thread_identity() != &block || pyrt_capi_pointer != &table;
    }
    if (race) {
        pthread_join(other, NULL);
    }
    printf("%d wrong\n", wrong);
    return 0;
}
