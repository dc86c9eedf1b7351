//! The codec against prost-reflect, and what each of them is to do by the mapping.

mod bytes;
mod mapping;
mod permuted;
mod properties;
mod random;
