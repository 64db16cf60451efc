// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A PCI function's memory BAR as a private node.
 *
 * Probing claims the BAR, maps it with struct pages, tests it if asked to, and
 * registers the node. Everything but the node is managed by the device, so it
 * is undone in reverse order when probing fails or the driver is unbound; the
 * node is taken down first, by hand.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/io.h>
#include <linux/memremap.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pfn.h>

#include "pnode.h"
#include "pnode_fail.h"
#include "pnode_linux.h"
#include "pnode_module.h"

struct pnode_pci {
	struct pnode_pages pages;
	struct pnode_range range;
	bool has_pages;
	struct pnode_device *node;
};

/* The function's memory, mapped and if possible with struct pages, as a range of frames. */
static int pnode_pci_map(struct pci_dev *pdev, int bar, struct pnode_pci *device)
{
	struct resource *res = &pdev->resource[bar];
	void *mapping;
	int rc;

	if (!(res->flags & IORESOURCE_MEM) || !resource_size(res))
		return dev_err_probe(&pdev->dev, -ENODEV, "BAR %d is no memory\n", bar);

	rc = pnode_fails() ? -EBUSY : pci_request_region(pdev, bar, KBUILD_MODNAME);
	if (rc)
		return dev_err_probe(&pdev->dev, rc, "BAR %d is taken\n", bar);

	if (IS_ALIGNED(res->start | resource_size(res), memremap_compat_align())) {
		mapping = pnode_pages_map(&pdev->dev, &device->pages, res);
		device->has_pages = true;
	} else {
		/* Too small a piece for struct pages; nothing here depends on them. */
		mapping = ERR_PTR(-ENOMEM);
		if (!pnode_fails())
			mapping = devm_memremap(&pdev->dev, res->start, resource_size(res),
						MEMREMAP_WB);
	}
	if (IS_ERR(mapping))
		return dev_err_probe(&pdev->dev, PTR_ERR(mapping),
				     "BAR %d cannot be mapped\n", bar);

	device->range.first_pfn = PHYS_PFN(res->start);
	device->range.frames = PHYS_PFN(resource_size(res));
	device->range.mapping = mapping;
	return 0;
}

static int pnode_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct pnode_pci *device;
	int rc;

	device = pnode_fails() ? NULL : devm_kzalloc(&pdev->dev, sizeof(*device), GFP_KERNEL);
	if (!device)
		return -ENOMEM;

	/* From here on the regions and the enabled state are managed, too. */
	rc = pnode_fails() ? -EIO : pcim_enable_device(pdev);
	if (rc)
		return dev_err_probe(&pdev->dev, rc, "cannot be enabled\n");

	rc = pnode_pci_map(pdev, id->driver_data, device);
	if (rc)
		return rc;

	rc = pnode_device_test(&pdev->dev, &device->range);
	if (rc)
		return rc;

	device->node = pnode_device_add_pages(&pdev->dev, &device->range, PNODE_CLASS_DEVICE_BUFFER,
					      pnode_features,
					      device->has_pages ? &device->pages : NULL);
	if (IS_ERR(device->node))
		return dev_err_probe(&pdev->dev, PTR_ERR(device->node),
				     "no node can be registered\n");

	pci_set_drvdata(pdev, device);
	return 0;
}

static void pnode_pci_remove(struct pci_dev *pdev)
{
	struct pnode_pci *device = pci_get_drvdata(pdev);

	pnode_device_remove(device->node);
}

static const struct pci_device_id pnode_pci_ids[] = {
	/* QEMU's ivshmem: its shared memory is BAR 2. */
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1110), .driver_data = 2 },
	{ }
};
MODULE_DEVICE_TABLE(pci, pnode_pci_ids);

struct pci_driver pnode_pci_driver = {
	.name = KBUILD_MODNAME,
	.id_table = pnode_pci_ids,
	.probe = pnode_pci_probe,
	.remove = pnode_pci_remove,
};
