// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A sample client: a network card's driver, as far as its memory goes.
 *
 * It makes the memory of its own PCI function a private node, fills a receive
 * ring with buffers of it, and passes packets through more of them on every CPU
 * at once. QEMU's ivshmem stands for the card; as it is pnode.ko's own device,
 * too, this driver takes a function only by driver_override:
 *
 *   echo pnode_nic > /sys/bus/pci/devices/<address>/driver_override
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pfn.h>
#include <linux/slab.h>

#include "pnode.h"
#include "pnode_linux.h"

#define NIC_BAR 2
#define NIC_RING 64
/* A buffer of two pages holds a packet of up to 8 KiB. */
#define NIC_ORDER 1
#define NIC_BATCH 32

static unsigned int packets = 1000;
module_param(packets, uint, 0444);
MODULE_PARM_DESC(packets, "Batches of packets that each CPU passes when a card is found");

struct nic {
	struct pnode_device *memory;
	struct pnode_grant *grant;
	u64 ring[NIC_RING];
	unsigned int filled;
};

struct nic_queue {
	struct nic *nic;
	struct task_struct *thread;
	struct completion done;
	unsigned int cpu;
	/* Buffers that came back with something else in them, or could not be freed. */
	u64 broken;
	u64 passed;
};

/* Every word of a packet says whose it is. */
static void nic_stamp(u64 *packet, u64 stamp)
{
	memset64(packet, stamp, (PAGE_SIZE << NIC_ORDER) / sizeof(*packet));
}

static bool nic_is_stamped(const u64 *packet, u64 stamp)
{
	size_t i;

	for (i = 0; i < (PAGE_SIZE << NIC_ORDER) / sizeof(*packet); i++)
		if (packet[i] != stamp)
			return false;
	return true;
}

/* Takes a batch of buffers, writes a packet to each, and gives each back with its packet intact. */
static int nic_pass_packets(void *data)
{
	struct nic_queue *queue = data;
	struct pnode_grant *grant = queue->nic->grant;
	u64 buffers[NIC_BATCH];
	unsigned int round, taken, i;

	for (round = 0; round < packets; round++) {
		for (taken = 0; taken < NIC_BATCH; taken++) {
			if (pnode_alloc(grant, NIC_ORDER, &buffers[taken]))
				break;
			nic_stamp(pnode_address(grant, buffers[taken]),
				  (u64)queue->cpu << 32 | taken);
		}
		for (i = 0; i < taken; i++) {
			if (!nic_is_stamped(pnode_address(grant, buffers[i]),
					    (u64)queue->cpu << 32 | i) ||
			    pnode_free(grant, buffers[i], NIC_ORDER))
				queue->broken++;
			queue->passed++;
		}
		cond_resched();
	}
	complete(&queue->done);
	return 0;
}

/* Passes packets on every CPU at once. */
static int nic_traffic(struct device *dev, struct nic *nic)
{
	struct nic_queue *queues = kcalloc(nr_cpu_ids, sizeof(*queues), GFP_KERNEL);
	u64 passed = 0, broken = 0;
	unsigned int cpu;

	if (!queues)
		return -ENOMEM;
	for_each_online_cpu(cpu) {
		struct nic_queue *queue = &queues[cpu];

		queue->nic = nic;
		queue->cpu = cpu;
		init_completion(&queue->done);
		queue->thread = kthread_create(nic_pass_packets, queue, "pnode_nic/%u", cpu);
		if (IS_ERR(queue->thread))
			continue;
		kthread_bind(queue->thread, cpu);
	}
	for_each_online_cpu(cpu)
		if (!IS_ERR_OR_NULL(queues[cpu].thread))
			wake_up_process(queues[cpu].thread);
	for_each_online_cpu(cpu) {
		if (IS_ERR_OR_NULL(queues[cpu].thread))
			continue;
		wait_for_completion(&queues[cpu].done);
		passed += queues[cpu].passed;
		broken += queues[cpu].broken;
	}
	kfree(queues);
	dev_info(dev, "%llu packets on %u CPUs, %llu broken\n", passed, num_online_cpus(), broken);
	return broken || !passed ? -EIO : 0;
}

static void nic_drain(struct nic *nic)
{
	while (nic->filled)
		WARN_ON(pnode_free(nic->grant, nic->ring[--nic->filled], NIC_ORDER));
}

static int nic_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct resource *res = &pdev->resource[NIC_BAR];
	struct pnode_grant *stolen;
	struct pnode_range range;
	struct nic *nic;
	int rc;

	nic = devm_kzalloc(&pdev->dev, sizeof(*nic), GFP_KERNEL);
	if (!nic)
		return -ENOMEM;
	rc = pcim_enable_device(pdev);
	if (!rc)
		rc = pci_request_region(pdev, NIC_BAR, KBUILD_MODNAME);
	if (rc)
		return rc;
	range.first_pfn = PHYS_PFN(res->start);
	range.frames = PHYS_PFN(resource_size(res));
	range.mapping = devm_memremap(&pdev->dev, res->start, resource_size(res), MEMREMAP_WB);
	if (IS_ERR(range.mapping))
		return PTR_ERR(range.mapping);

	nic->memory = pnode_device_add(&pdev->dev, &range, PNODE_CLASS_DEVICE_BUFFER, 0);
	if (IS_ERR(nic->memory))
		return PTR_ERR(nic->memory);

	/* The node is closed: reclaim, or anybody else, gets no grant. */
	rc = pnode_service_grant(pnode_device_id(nic->memory), PNODE_REASON_RECLAIM, &stolen);
	if (rc != -EPERM) {
		if (!rc)
			pnode_grant_put(stolen);
		rc = -EIO;
		goto err_memory;
	}

	rc = pnode_node_grant(pnode_device_node(nic->memory), &nic->grant);
	if (rc)
		goto err_memory;
	for (; nic->filled < NIC_RING; nic->filled++) {
		rc = pnode_alloc(nic->grant, NIC_ORDER, &nic->ring[nic->filled]);
		if (rc)
			goto err_ring;
	}
	rc = nic_traffic(&pdev->dev, nic);
	if (rc)
		goto err_ring;
	pci_set_drvdata(pdev, nic);
	return 0;

err_ring:
	nic_drain(nic);
	pnode_grant_put(nic->grant);
err_memory:
	pnode_device_remove(nic->memory);
	return rc;
}

static void nic_remove(struct pci_dev *pdev)
{
	struct nic *nic = pci_get_drvdata(pdev);

	nic_drain(nic);
	pnode_grant_put(nic->grant);
	pnode_device_remove(nic->memory);
}

static const struct pci_device_id nic_ids[] = { { } };

static struct pci_driver nic_driver = {
	.name = KBUILD_MODNAME,
	.id_table = nic_ids,
	.probe = nic_probe,
	.remove = nic_remove,
};
module_pci_driver(nic_driver);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("A sample client of pnode: a network card that keeps packets in a private node");
