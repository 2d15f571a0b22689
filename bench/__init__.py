"""Measurements that the README and the notes quote, one module each: `./run_all.sh bench [NAME ...]`."""
