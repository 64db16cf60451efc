// SPDX-License-Identifier: GPL-2.0 OR MIT
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/pci.h>

#include "pnode_fail.h"
#include "pnode_host.h"
#include "pnode_module.h"

#define CREATE_TRACE_POINTS
#include "pnode_trace.h"

static int __init pnode_init(void)
{
	int rc;

	pnode_host_init();
	rc = pnode_devices_init();
	if (rc)
		goto err;
	rc = pnode_claims_init();
	if (rc)
		goto err_devices;
	rc = pnode_fails() ? -ENOMEM : pci_register_driver(&pnode_pci_driver);
	if (rc)
		goto err_claims;
	return 0;

err_claims:
	pnode_claims_exit();
err_devices:
	pnode_devices_exit();
err:
	pnode_check_memory();
	return rc;
}

static void __exit pnode_exit(void)
{
	/* Both unbind their devices, which takes the nodes away. */
	pci_unregister_driver(&pnode_pci_driver);
	pnode_claims_exit();
	pnode_devices_exit();
	pnode_check_memory();
}

module_init(pnode_init);
module_exit(pnode_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Private memory nodes on device memory");
MODULE_VERSION("0.1.0");
