"""The database: engine, models, schema, column types, and what SQLite and Postgres do differently."""
