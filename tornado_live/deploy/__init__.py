"""`tornado-live deploy check`: real connections through the real proxy, and the lines that mend what is wrong."""
