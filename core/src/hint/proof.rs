//! Which blocks are read although a hint calls them unchanged.
