/* Starts everything, then reports every options.every and listens to the console. */
#define _GNU_SOURCE
#include "load.h"

#include <poll.h>
#include <unistd.h>

/* Before the first operation, so that whoever reads "ready" has the disks' lines already. */
static void say_ready(void)
{
    disks_say();
    say("ready mode=%s disks=%d gen=%lu", options.mode, ndisks, options.generation);
}

static void report_and_listen(void)
{
    struct pollfd console = {.fd = STDIN_FILENO, .events = POLLIN};
    const uint64_t every = options.every * 1000;

    for (uint64_t due = now_us();;) {
        uint64_t now = now_us();
        if (now >= due) {
            say_status();
            due = now + every - (now - due) % every;
        }
        if (poll(&console, 1, (int)((due - now) / 1000) + 1) > 0 && !console_read())
            console.fd = -1;
    }
}

int main(void)
{
    const char *why;

    console_setup();
    if ((why = options_read("/proc/cmdline")))
        fatal("option-", why);
    disks_find();
    say_ready();
    if ((options.dirty && !dirtier_start()) || !worker_start())
        fatal("no-memory-or-thread", "");
    report_and_listen();
}
