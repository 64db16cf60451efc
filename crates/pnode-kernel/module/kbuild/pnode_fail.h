/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Failures made on purpose, to show that everything half done is undone. */
#ifndef PNODE_FAIL_H
#define PNODE_FAIL_H

#include <linux/types.h>

/*
 * Whether the caller is to act as if what it is about to ask the kernel for had
 * been refused: a point of failure. Never true unless an administrator asked
 * for it by one of the parameters fail_*. Any context.
 */
bool pnode_fails(void);

/* Counts memory of the Rust half that is out. */
void pnode_count_memory(int pieces);
/* Complains if some is, as the module goes. */
void pnode_check_memory(void);

#endif
