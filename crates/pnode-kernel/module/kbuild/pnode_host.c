// SPDX-License-Identifier: GPL-2.0 OR MIT
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/bug.h>
#include <linux/printk.h>
void pnode_host_log(const char *text, size_t bytes);
void pnode_host_bug(const char *text, size_t bytes) __noreturn;
void pnode_host_log(const char *text, size_t bytes)
{
	pr_info("%.*s\n", (int)bytes, text);
}
void pnode_host_bug(const char *text, size_t bytes)
{
	pr_emerg("%.*s\n", (int)bytes, text);
	BUG();
}
