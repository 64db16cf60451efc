//! The registry against its rules: every small life, random large ones, and the edges that neither reaches.

mod edges;
mod hands;
mod life;
mod model;
mod motion;
mod real;
mod rules;
mod step;
mod stress;
