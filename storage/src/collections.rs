//! Collections over [`Pages`](crate::pages::Pages). Their handles are plain values, kept in the root record of a
//! machine; everything else they hold is in pages.

pub mod ordered_map;
