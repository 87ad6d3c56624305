"""What a later release may do to the tables that grow: an app of migrations alone, for `manage.py bench migrate`."""
