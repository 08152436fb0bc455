"""Rankings: results of several searches and random genotypes, trained alike and compared."""
