"""Granger tests: does one feature's series over tokens help to predict another's?"""
