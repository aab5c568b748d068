"""Regular languages, and the regular expressions of JSON schemas as such languages."""
