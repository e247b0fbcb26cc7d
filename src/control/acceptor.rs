//! acceptor
