// SPDX-License-Identifier: GPL-2.0 OR MIT
#include <linux/module.h>
int pnode_selftest(void);
static int __init pnode_init(void)
{
	return pnode_selftest();
}
static void __exit pnode_exit(void)
{
}
module_init(pnode_init);
module_exit(pnode_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Private memory nodes on device memory");
