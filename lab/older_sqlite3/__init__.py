"""Django's SQLite before 5.1, with the transactions and the speed that options ask for since."""
