//! OCI images: registry client, content store, layer unpacking.
