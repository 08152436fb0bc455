"""Rankings: what several searches found, and random genotypes, trained alike and set side by side."""
