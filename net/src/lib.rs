//! Virtual networking over netlink.
