"""What tests of several parts of the core share lies beside this file, where pytest finds it by this one."""
