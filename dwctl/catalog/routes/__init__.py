"""The admin API of the catalog: endpoints, models, and which groups may use which model."""
