"""The sections of the page: each makes blocks of texts, tables and charts from the report's data."""
