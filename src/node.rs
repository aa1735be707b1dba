//! One process: builds its roles, stops them in reverse.
