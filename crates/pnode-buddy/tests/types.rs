//! Areas are grouped by migrate type, and a type that has run out takes from the others in the stated order.

mod common;

use common::{Random, zone};
use pnode_buddy::{Cpu, Keep, Zone};
use pnode_core::{MigrateType, Order, Pfn};

const AREA: u64 = Zone::AREA_FRAMES;
const ZERO: Order = Order::ZERO;

use MigrateType::{Huge, Movable, Unmovable};

fn area(pfn: Pfn) -> u64 {
    pfn.get() / AREA
}

#[test]
fn types_do_not_mix_while_there_are_areas() {
    for cached in [false, true] {
        let (zone, _) = zone(0, 64 * AREA, &[]);
        let mut cpu = cached.then(|| Cpu::new(&zone, Keep::Frames));
        let mut random = Random(4);
        let mut types = [None; 64];
        let mut held = Vec::new();
        for _ in 0..6_000 {
            let migrate = MigrateType::ALL[random.below(3) as usize];
            let order = Order::new(random.below(6).min(random.below(6)) as u8).unwrap();
            if random.below(8) < 5 {
                let pfn = match &mut cpu {
                    Some(cpu) => cpu.alloc(order, migrate),
                    None => zone.alloc(order, migrate),
                };
                let pfn = pfn.unwrap();
                let of = types[area(pfn) as usize].get_or_insert(migrate);
                // Movable frames use up the holes of unmovable areas.
                let filler = (*of, migrate) == (Unmovable, Movable);
                assert!(*of == migrate || filler, "{migrate:?} {pfn:?} lies in an area of {of:?}");
                held.push((pfn, order));
            } else if held.len() > 100 {
                let (pfn, order) = held.swap_remove(random.below(held.len() as u64) as usize);
                zone.free(pfn, order).unwrap();
            }
        }
    }
}

#[test]
fn a_type_that_has_run_out_takes_from_the_least_harmed() {
    for (migrate, first, second) in
        [(Unmovable, Huge, Movable), (Movable, Unmovable, Huge), (Huge, Movable, Unmovable)]
    {
        let (zone, _) = zone(0, 3 * AREA, &[]);
        let owner = |migrate| area(zone.alloc(ZERO, migrate).unwrap());
        // Movable first: it would use an unmovable area.
        let [movable, unmovable, huge] = [Movable, Unmovable, Huge].map(owner);
        let areas = [unmovable, movable, huge];
        let order: Vec<u64> = std::iter::from_fn(|| zone.alloc(ZERO, migrate).ok()).map(area).collect();
        let mut visited = order.clone();
        visited.dedup();
        let expected = [migrate, first, second].map(|migrate| areas[migrate as usize]);
        assert_eq!(visited, expected, "{migrate:?}");
        assert_eq!(order.len() as u64, 3 * (AREA - 1), "a type made a request fail");
    }
}

#[test]
fn an_area_changes_its_type_when_it_is_wholly_free_and_not_before() {
    let (zone, _) = zone(0, 2 * AREA, &[]);
    let second = zone.alloc(ZERO, Movable).unwrap();
    let first = zone.alloc(ZERO, Unmovable).unwrap();
    assert_ne!(area(first), area(second));
    let counts = zone.free_counts();
    assert_eq!((counts.by_type, counts.unclaimed), ([AREA - 1, AREA - 1, 0], 0));
    // A huge block is taken from the movable area, which stays what it is.
    let third = zone.alloc(ZERO, Huge).unwrap();
    assert_eq!(area(third), area(second));
    assert_eq!(zone.free_counts().by_type, [AREA - 1, AREA - 2, 0]);
    // Wholly free, it goes to whoever needs an area.
    [first, second, third].into_iter().for_each(|pfn| zone.free(pfn, ZERO).unwrap());
    let whole = zone.alloc(Order::new(10).unwrap(), Huge).unwrap();
    zone.free(whole, Order::new(10).unwrap()).unwrap();
    assert_eq!((zone.free_counts().by_type, zone.free_counts().unclaimed), ([0; 3], 2 * AREA));
    zone.alloc(ZERO, Huge).unwrap();
    assert_eq!((zone.free_counts().by_type, zone.free_counts().unclaimed), ([0, 0, AREA - 1], AREA));
}

#[test]
fn movable_frames_use_up_unmovable_areas_before_they_take_new_ones() {
    for cached in [false, true] {
        let (zone, _) = zone(0, 64 * AREA, &[]);
        let mut cpu = cached.then(|| Cpu::new(&zone, Keep::Frames));
        let kernel = zone.alloc(ZERO, Unmovable).unwrap();
        for _ in 1..AREA {
            let pfn = match &mut cpu {
                Some(cpu) => cpu.alloc(ZERO, Movable),
                None => zone.alloc(ZERO, Movable),
            };
            assert_eq!(area(pfn.unwrap()), area(kernel), "cached: {cached}");
        }
        // What the unmovable area lost is in no other's count.
        drop(cpu);
        let counts = zone.free_counts();
        assert_eq!((counts.by_type, counts.unclaimed), ([0; 3], 63 * AREA));
        // The other way round, a movable area is the last to be spoilt.
        let page = zone.alloc(ZERO, Movable).unwrap();
        assert_ne!(area(zone.alloc(ZERO, Unmovable).unwrap()), area(page));
        zone.audit().unwrap();
    }
}

#[test]
fn blocks_of_sixteen_frames_and_more_are_kept_apart_from_smaller_ones() {
    for migrate in MigrateType::ALL {
        let (zone, _) = zone(0, 8 * AREA, &[]);
        let order = |order| Order::new(order).unwrap();
        let [small, large] = [0, 4].map(|size| zone.alloc(order(size), migrate).unwrap());
        assert_ne!(area(small), area(large));
        for size in 0..9 {
            let beside = if size < 4 { small } else { large };
            assert_eq!(area(zone.alloc(order(size), migrate).unwrap()), area(beside), "{size}");
        }
        // With no area left, the one of the other size is used.
        while zone.alloc(Order::HUGE, Huge).is_ok() {}
        let last = std::iter::from_fn(|| zone.alloc(order(4), migrate).ok()).last().unwrap();
        assert_eq!(area(last), area(small));
        assert_eq!(zone.free_frames(), 0);
    }
}
