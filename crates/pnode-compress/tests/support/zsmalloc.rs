//! A model of zsmalloc's size classes (Linux 7.3, chains of up to 8 pages), to compare the store with.
//!
//! Sizes step by 16 bytes from 32, with 8 bytes for the handle in each object; a class takes the chain length that
//! leaves the smallest tail, classes of equal geometry are one, and what is at or above the huge limit takes a page.
//! Freed objects leave holes that only their own class can use. Which of the part-full chains gets an object imitates
//! fullest-first over the twelve most recent ones. Written from the description of the design.
#![allow(dead_code, reason = "each test uses a part of the support code")]

use std::collections::HashMap;

const PAGE: usize = 4096;
const HANDLE: usize = 8;
const CHAIN: usize = 8;

/// Pages a chain, and objects in it.
type Geometry = (usize, usize);

pub(crate) struct Zsmalloc {
    classes: Vec<(usize, Geometry)>,
    huge: usize,
    part_full: HashMap<Geometry, Vec<usize>>,
    occupied: HashMap<usize, usize>,
    objects: HashMap<u32, (Geometry, usize, usize)>,
    next: usize,
    pages: usize,
    payload: usize,
}

impl Zsmalloc {
    pub(crate) fn new() -> Self {
        let mut classes: Vec<(usize, Geometry)> = Vec::new();
        let mut huge = PAGE;
        for size in (0..255).map(|i| (32 + 16 * i).min(PAGE)).rev() {
            let pages = if size.is_power_of_two() {
                1
            } else {
                (1..=CHAIN).min_by_key(|n| (n * PAGE % size, *n)).unwrap()
            };
            let geometry = (pages, pages * PAGE / size);
            if pages != 1 && geometry.1 != 1 && huge == PAGE {
                huge = size - (HANDLE - 1);
            }
            classes.push((size, geometry));
        }
        classes.reverse();
        let empty = HashMap::new();
        Self {
            classes,
            huge,
            part_full: HashMap::new(),
            occupied: HashMap::new(),
            objects: empty,
            next: 0,
            pages: 0,
            payload: 0,
        }
    }

    fn geometry(&self, size: usize) -> Geometry {
        if size >= self.huge {
            return (1, 1);
        }
        self.classes[(size + HANDLE).saturating_sub(32).div_ceil(16)].1
    }

    pub(crate) fn store(&mut self, slot: u32, size: usize) {
        self.remove(slot);
        let geometry = self.geometry(size);
        let part_full = self.part_full.entry(geometry).or_default();
        let recent = part_full.len().saturating_sub(12);
        let chain = match (recent..part_full.len()).max_by_key(|&i| self.occupied[&part_full[i]]) {
            Some(i) => part_full[i],
            None => {
                self.next += 1;
                self.pages += geometry.0;
                self.occupied.insert(self.next, 0);
                part_full.push(self.next);
                self.next
            }
        };
        let occupied = self.occupied.get_mut(&chain).unwrap();
        *occupied += 1;
        if *occupied == geometry.1 {
            part_full.retain(|other| *other != chain);
        }
        self.objects.insert(slot, (geometry, chain, size));
        self.payload += size;
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        let Some((geometry, chain, size)) = self.objects.remove(&slot) else { return };
        self.payload -= size;
        let part_full = self.part_full.get_mut(&geometry).unwrap();
        let occupied = self.occupied.get_mut(&chain).unwrap();
        if *occupied == geometry.1 {
            part_full.push(chain);
        }
        *occupied -= 1;
        if *occupied == 0 {
            self.occupied.remove(&chain);
            part_full.retain(|other| *other != chain);
            self.pages -= geometry.0;
        }
    }

    /// Pool bytes for a payload byte.
    pub(crate) fn ratio(&self) -> f64 {
        (self.pages * PAGE) as f64 / self.payload as f64
    }
}
