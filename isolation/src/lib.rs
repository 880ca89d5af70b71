//! Containers: spec, plan, system calls and the keeper.
