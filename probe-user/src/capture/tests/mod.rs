mod files;
mod make;
mod packets;
