"""Ontologies, vocabularies and tables of triples: read into concepts, asked about, found in sentences."""
