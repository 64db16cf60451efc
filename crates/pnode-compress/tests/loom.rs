//! Loom models.
#![cfg(loom)]
