//! Every setting of a node: unit, default and bound in one place.
