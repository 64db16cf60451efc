// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A range of physical addresses as a private node: soft-reserved memory, a
 * window of CXL memory, RAM that was kept from the kernel (memmap=).
 *
 * The administrator says which (claim=); it must not be ordinary RAM of the
 * kernel, and no driver may have it. Each range is a platform device, so that it
 * is bound and unbound like any other.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ioport.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/pfn.h>
#include <linux/memremap.h>
#include <linux/platform_device.h>
#include <linux/version.h>

#include "pnode.h"
#include "pnode_fail.h"
#include "pnode_linux.h"
#include "pnode_module.h"

#define PNODE_CLAIMS 8

static char *claim[PNODE_CLAIMS];
static int claims;
module_param_array(claim, charp, &claims, 0444);
MODULE_PARM_DESC(claim, "Ranges of physical addresses that become nodes, each as START+BYTES");

static struct platform_device *pnode_claimed[PNODE_CLAIMS];

struct pnode_claim {
	struct pnode_pages pages;
	struct pnode_device *node;
};

static int pnode_claim_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct resource *res = platform_get_resource(pdev, IORESOURCE_MEM, 0);
	struct pnode_claim *device;
	struct pnode_range range;
	int rc;

	device = pnode_fails() ? NULL : devm_kzalloc(dev, sizeof(*device), GFP_KERNEL);
	if (!device || !res)
		return -ENOMEM;
	if (region_intersects(res->start, resource_size(res), IORESOURCE_SYSTEM_RAM,
			      IORES_DESC_NONE) != REGION_DISJOINT)
		return dev_err_probe(dev, -EBUSY, "%pR is ordinary memory\n", res);
	if (pnode_fails() ||
	    !devm_request_mem_region(dev, res->start, resource_size(res), KBUILD_MODNAME))
		return dev_err_probe(dev, -EBUSY, "%pR is taken\n", res);

	range.first_pfn = PHYS_PFN(res->start);
	range.frames = PHYS_PFN(resource_size(res));
	range.mapping = pnode_pages_map(dev, &device->pages, res);
	if (IS_ERR(range.mapping))
		return dev_err_probe(dev, PTR_ERR(range.mapping), "%pR cannot be mapped\n", res);

	rc = pnode_device_test(dev, &range);
	if (rc)
		return rc;
	device->node = pnode_device_add_pages(dev, &range, PNODE_CLASS_FAR, pnode_features,
					      &device->pages);
	if (IS_ERR(device->node))
		return dev_err_probe(dev, PTR_ERR(device->node), "no node can be registered\n");
	platform_set_drvdata(pdev, device);
	return 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
static void pnode_claim_remove(struct platform_device *pdev)
#else
static int pnode_claim_remove(struct platform_device *pdev)
#endif
{
	struct pnode_claim *device = platform_get_drvdata(pdev);

	pnode_device_remove(device->node);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	return 0;
#endif
}

static struct platform_driver pnode_claim_driver = {
	.driver.name = KBUILD_MODNAME,
	.probe = pnode_claim_probe,
	.remove = pnode_claim_remove,
};

/* START+BYTES, as the kernel's own memmap= has it, both multiples of what can have struct pages. */
static int pnode_claim_parse(const char *text, struct resource *res)
{
	char *rest;
	u64 start = memparse(text, &rest), bytes;

	if (rest == text || *rest != '+')
		return -EINVAL;
	text = rest + 1;
	bytes = memparse(text, &rest);
	if (rest == text || *rest || !bytes || start + bytes < start ||
	    !IS_ALIGNED(start | bytes, memremap_compat_align()))
		return -EINVAL;
	*res = (struct resource){
		.start = start,
		.end = start + bytes - 1,
		.flags = IORESOURCE_MEM,
	};
	return 0;
}

int pnode_claims_init(void)
{
	struct resource res;
	int rc = pnode_fails() ? -ENOMEM : platform_driver_register(&pnode_claim_driver);
	int i;

	if (rc)
		return rc;
	for (i = 0; i < claims; i++) {
		rc = pnode_claim_parse(claim[i], &res);
		if (rc) {
			pr_err("claim=%s: not START+BYTES in multiples of %#lx\n", claim[i],
			       memremap_compat_align());
			break;
		}
		if (pnode_fails())
			pnode_claimed[i] = ERR_PTR(-ENOMEM);
		else
			pnode_claimed[i] =
				platform_device_register_simple(KBUILD_MODNAME, i, &res, 1);
		if (IS_ERR(pnode_claimed[i])) {
			rc = PTR_ERR(pnode_claimed[i]);
			pnode_claimed[i] = NULL;
			break;
		}
	}
	if (rc)
		pnode_claims_exit();
	return rc;
}

void pnode_claims_exit(void)
{
	int i;

	for (i = 0; i < claims; i++)
		platform_device_unregister(pnode_claimed[i]);
	platform_driver_unregister(&pnode_claim_driver);
}
