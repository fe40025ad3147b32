"""Tests of the lab on MariaDB, for machines that have one: `nox -s mariadb`."""
